// libFuzzer harness of the entropy decoder and the table reader: kernels/rans_stream.h and rans_tables.h, no Python.
//
// An input is read as follows; what it lacks is zero. make_corpus.py writes such inputs.
//
//   uint8          bit 0: tables from the input, else built-in ones; bit 1: the rest is symbols to encode, no payload
//   uint8          number of tables T            } only with tables from the input
//   int32[T]       radius of each                }
//   uint16         number of values N of the cdf }
//   uint16[N]      the cdf                       }
//   uint8          number of chunks, modulo 8
//   3 bytes each   uint16 size, modulo 4096; uint8 seed of its table indexes
//   rest           the payload, or int16 symbols
//
// Any payload may be refused with std::invalid_argument. If it decodes, its symbols must survive encoding, and symbols
// must always do. Anything else aborts.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "../../kernels/rans_stream.h"
#include "../../kernels/rans_tables.h"

namespace {

using condic::Chunk;
using condic::Decoder;
using condic::Encoder;
using condic::Tables;

class Input {
 public:
  Input(const uint8_t* bytes, size_t size) : bytes_(bytes), left_(size) {}

  template <class T>
  T take() {
    T value = 0;
    take(&value, 1);
    return value;
  }
  template <class T>
  std::vector<T> take_vector(size_t count) {
    std::vector<T> values(count);
    take(values.data(), count);
    return values;
  }
  std::vector<uint8_t> rest() { return take_vector<uint8_t>(left_); }
  size_t left() const { return left_; }

 private:
  template <class T>
  void take(T* values, size_t count) {
    const size_t size = count * sizeof(T) < left_ ? count * sizeof(T) : left_;
    if (size == 0) return;
    std::memcpy(values, bytes_, size);
    bytes_ += size;
    left_ -= size;
  }

  const uint8_t* bytes_;
  size_t left_;
};

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "coder_fuzzer: %s\n", what);
  std::abort();
}

// Tables from narrow to the widest there is, whose likeliest symbol is 0.
const Tables& built_in_tables() {
  static const Tables tables = [] {
    const std::vector<int32_t> radius = {0, 1, 2, 7, 60, 277, 1023, condic::kMaxRadius};
    std::vector<uint16_t> cdf;
    for (const int32_t r : radius) {
      const uint32_t symbols = 2 * static_cast<uint32_t>(r) + 2;
      const uint32_t spare = condic::kTotal - symbols;
      uint32_t at = 0;
      for (uint32_t rank = 0; rank < symbols; ++rank) {
        cdf.push_back(static_cast<uint16_t>(at));
        const bool zero = rank == static_cast<uint32_t>(r), escape = rank + 1 == symbols;
        at += 1 + (escape ? 0 : zero ? spare / 2 : spare / (4 * symbols));
      }
      // What is left belongs to the escape symbol.
      cdf.push_back(static_cast<uint16_t>(condic::kTotal));
    }
    return Tables(cdf.data(), cdf.size(), radius.data(), radius.size());
  }();
  return tables;
}

Tables tables_of(Input& input) {
  const auto count = input.take<uint8_t>();
  const auto radius = input.take_vector<int32_t>(count);
  const auto cdf = input.take_vector<uint16_t>(input.take<uint16_t>());
  return Tables(cdf.data(), cdf.size(), radius.data(), radius.size());
}

// Mostly indexes of tables that exist; a seed of 255 gives one that may not.
std::vector<uint8_t> indexes_of(uint8_t seed, size_t size, size_t tables) {
  std::vector<uint8_t> indexes(size);
  uint32_t state = seed;
  for (uint8_t& index : indexes) {
    state = state * 1664525u + 1013904223u;
    index = static_cast<uint8_t>((state >> 24) % tables);
  }
  if (seed == 255 && size > 0) indexes[size / 2] = 255;
  return indexes;
}

using Symbols = std::vector<std::vector<int16_t>>;
using Indexes = std::vector<std::vector<uint8_t>>;

Symbols decode(const Tables& tables, const std::vector<uint8_t>& payload, const Indexes& indexes) {
  Decoder decoder(tables, payload.data(), payload.size());
  Symbols symbols;
  try {
    for (const auto& chunk : indexes) {
      symbols.emplace_back(chunk.size());
      decoder.decode(chunk.data(), chunk.size(), symbols.back().data());
    }
    decoder.finish();
    return symbols;
  } catch (const std::invalid_argument& error) {
    if (std::strstr(error.what(), "damaged") == nullptr) throw;  // a wrong index leaves the decoder as it was
  }
  bool refused = false;
  try {
    decoder.finish();
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  require(refused, "a decoder went on after an error");
  throw std::invalid_argument("refused");
}

std::vector<uint8_t> encode(const Tables& tables, const Symbols& symbols, const Indexes& indexes) {
  std::vector<Chunk> chunks;
  for (size_t k = 0; k < symbols.size(); ++k) {
    chunks.push_back({symbols[k].data(), indexes[k].data(), symbols[k].size()});
  }
  return Encoder(tables, chunks).payload();
}

void exercise(const Tables& tables, bool encodes, Input& input) {
  Indexes indexes(input.take<uint8_t>() % 8);
  for (auto& chunk : indexes) {
    const size_t size = input.take<uint16_t>() % 4096;
    chunk = indexes_of(input.take<uint8_t>(), size, tables.count());
  }
  Symbols symbols;
  if (encodes) {
    for (const auto& chunk : indexes) symbols.push_back(input.take_vector<int16_t>(chunk.size()));
  } else {
    symbols = decode(tables, input.rest(), indexes);
  }
  const std::vector<uint8_t> payload = encode(tables, symbols, indexes);
  try {
    require(decode(tables, payload, indexes) == symbols, "symbols changed between encoder and decoder");
  } catch (const std::invalid_argument&) {
    require(false, "the decoder refused what the encoder wrote");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  Input input(bytes, size);
  const auto flags = input.take<uint8_t>();
  try {
    if (flags & 1) {
      exercise(tables_of(input), flags & 2, input);
    } else {
      exercise(built_in_tables(), flags & 2, input);
    }
  } catch (const std::invalid_argument&) {
  }
  return 0;
}
