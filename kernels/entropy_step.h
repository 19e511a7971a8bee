// The entropy-parameter step: between the graph that predicts a chunk and the coder that codes it.
//
// A latent has shape [C, H, W]. Its chunk is a list of boxes; the elements of a chunk are ordered box by box, and within
// a box by channel, row and column. For each element a context graph predicts the mean in units of 1/16 (mu16) and the
// index of a scale. Encoding quantises y to q = round(y - mu); decoding reads q. Both then store the decoded latent in
// units of 1/16, 16 q + mu16, and the context input that later graphs read, and agree on a checksum of the former.
//
// The functions for one element run on host and device alike; the loops here are the host's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "host_device.h"

namespace condic {

struct StepOptions {
  int32_t scales;         // scale indexes are clamped to 0..scales-1
  int32_t first_coded;    // elements with a smaller scale index are not coded: q = 0
  int32_t context_shift;  // context input: the latent in units of 2^context_shift / 16, rounded half up,
  int32_t context_limit;  // and clipped to -context_limit..context_limit
};

constexpr int32_t kMaxSymbol = 32767;
constexpr int32_t kMaxContextShift = 20;
constexpr int32_t kMaxContextLimit = 1 << 24;  // where float32 ceases to hold every integer

// Graphs hand integers over in float32. Whatever is not one is truncated and clamped; NaN becomes `low`.
CONDIC_HD int32_t to_integer(float value, int32_t low, int32_t high) {
  if (!(value >= static_cast<float>(low))) return low;
  return value > static_cast<float>(high) ? high : static_cast<int32_t>(value);
}

CONDIC_HD int32_t mean_code(float parameter) { return to_integer(parameter, INT16_MIN, INT16_MAX); }

CONDIC_HD int32_t scale_index(float parameter, int32_t scales) { return to_integer(parameter, 0, scales - 1); }

// floor(y - mu16 / 16 + 1/2), clamped to +-32767; 0 for NaN.
CONDIC_HD int32_t quantise(float y, int32_t mu16) {
  float value = y - static_cast<float>(mu16) * 0.0625f + 0.5f;
  value = value == value ? value : 0.0f;
  value = value > -32767.0f ? value : -32767.0f;
  value = value < 32767.0f ? value : 32767.0f;
  const auto truncated = static_cast<int32_t>(value);
  return truncated - (static_cast<float>(truncated) > value);
}

CONDIC_HD int32_t decoded_latent(int32_t q, int32_t mu16) { return 16 * q + mu16; }

CONDIC_HD float context_input(int32_t latent, const StepOptions& options) {
  // Shifting a negative integer right rounds towards minus infinity on every compiler that matters (and in C++20).
  int32_t value = (latent + ((1 << options.context_shift) >> 1)) >> options.context_shift;
  value = value > -options.context_limit ? value : -options.context_limit;
  value = value < options.context_limit ? value : options.context_limit;
  return static_cast<float>(value);
}

// The finaliser of MurmurHash3 (32 bit). A chunk's checksum is the sum of its elements' terms modulo 2^32, so that it
// can be added up in any order.
CONDIC_HD uint32_t checksum_term(uint32_t ordinal, int32_t latent) {
  uint32_t hash = ordinal * 0x9E3779B1u ^ static_cast<uint32_t>(latent);
  hash = (hash ^ hash >> 16) * 0x85EBCA6Bu;
  hash = (hash ^ hash >> 13) * 0xC2B2AE35u;
  return hash ^ hash >> 16;
}

struct Shape {
  size_t channels, rows, columns;

  size_t size() const { return channels * rows * columns; }
};

// Channels [c0, c1), rows r0, r0 + rstep, .. < r1, columns q0, q0 + qstep, .. < q1.
struct Box {
  int32_t c0, c1, r0, r1, rstep, q0, q1, qstep;

  size_t channels() const { return static_cast<size_t>(c1 - c0); }
  size_t rows() const { return (static_cast<size_t>(r1 - r0) + rstep - 1) / rstep; }
  size_t columns() const { return (static_cast<size_t>(q1 - q0) + qstep - 1) / qstep; }
  size_t size() const { return channels() * rows() * columns(); }
};

// A latent's arrays. `mean` and `scale` are the two planes of the graph's output.
struct Latent {
  Shape shape;
  const float* mean;
  const float* scale;
  int32_t* decoded;  // in 1/16; null where only indexes are gathered
  float* context;    // the same
};

// The number of elements of a chunk. Throws std::invalid_argument for a box that leaves the latent, and for more elements
// than the latent has.
inline size_t check_boxes(const Shape& shape, const Box* boxes, size_t count) {
  const auto inside = [](int32_t begin, int32_t end, int32_t step, size_t extent) {
    return begin >= 0 && begin <= end && static_cast<size_t>(end) <= extent && step >= 1;
  };
  size_t total = 0;
  for (size_t i = 0; i < count; ++i) {
    const Box& box = boxes[i];
    if (!inside(box.c0, box.c1, 1, shape.channels) || !inside(box.r0, box.r1, box.rstep, shape.rows) ||
        !inside(box.q0, box.q1, box.qstep, shape.columns)) {
      throw std::invalid_argument("box " + std::to_string(i) + " does not lie within the latent");
    }
    total += box.size();
    if (total > shape.size()) throw std::invalid_argument("the boxes hold more elements than the latent");
  }
  return total;
}

// Calls visit(offset) for every element of a chunk in order. The boxes have been checked.
template <class Visit>
void for_each_element(const Shape& shape, const Box* boxes, size_t count, Visit&& visit) {
  for (const Box* box = boxes; box != boxes + count; ++box) {
    const size_t columns = box->columns();
    for (int32_t c = box->c0; c < box->c1; ++c) {
      for (int32_t r = box->r0; r < box->r1; r += box->rstep) {
        const size_t row = (static_cast<size_t>(c) * shape.rows + r) * shape.columns + box->q0;
        if (box->qstep == 1) {
          for (size_t i = 0; i < columns; ++i) visit(row + i);
        } else {
          for (size_t i = 0; i < columns; ++i) visit(row + i * box->qstep);
        }
      }
    }
  }
}

// Stores what coding leaves behind for one element, and adds its term to the checksum.
inline void store(const Latent& latent, size_t at, int32_t q, int32_t mu16, const StepOptions& options,
                  uint32_t& ordinal, uint32_t& checksum) {
  const int32_t decoded = decoded_latent(q, mu16);
  latent.decoded[at] = decoded;
  latent.context[at] = context_input(decoded, options);
  checksum += checksum_term(ordinal++, decoded);
}

struct Quantised {
  size_t coded;  // symbols and indexes written
  uint32_t checksum;
};

// `symbols` and `indexes` have room for every element of the chunk.
inline Quantised quantise_chunk(const float* y, const Latent& latent, const Box* boxes, size_t count,
                                const StepOptions& options, int16_t* symbols, uint8_t* indexes) {
  size_t coded = 0;
  uint32_t ordinal = 0;
  uint32_t checksum = 0;
  for_each_element(latent.shape, boxes, count, [&](size_t at) {
    const int32_t mu16 = mean_code(latent.mean[at]);
    const int32_t scale = scale_index(latent.scale[at], options.scales);
    const bool is_coded = scale >= options.first_coded;
    const int32_t q = is_coded ? quantise(y[at], mu16) : 0;
    symbols[coded] = static_cast<int16_t>(q);
    indexes[coded] = static_cast<uint8_t>(scale);
    coded += is_coded;
    store(latent, at, q, mu16, options, ordinal, checksum);
  });
  return {coded, checksum};
}

// Writes the scale indexes of the coded elements, in order, and returns their number.
inline size_t gather_indexes(const Latent& latent, const Box* boxes, size_t count, const StepOptions& options,
                             uint8_t* indexes) {
  size_t coded = 0;
  for_each_element(latent.shape, boxes, count, [&](size_t at) {
    const int32_t scale = scale_index(latent.scale[at], options.scales);
    indexes[coded] = static_cast<uint8_t>(scale);
    coded += scale >= options.first_coded;
  });
  return coded;
}

// Returns the checksum. Throws std::invalid_argument if the chunk does not code exactly `size` symbols.
inline uint32_t scatter_symbols(const int16_t* symbols, size_t size, const Latent& latent, const Box* boxes,
                                size_t count, const StepOptions& options) {
  constexpr int16_t kNone = 0;
  size_t coded = 0;
  uint32_t ordinal = 0;
  uint32_t checksum = 0;
  for_each_element(latent.shape, boxes, count, [&](size_t at) {
    const bool is_coded = scale_index(latent.scale[at], options.scales) >= options.first_coded;
    const int16_t* const symbol = is_coded && coded < size ? symbols + coded : &kNone;
    coded += is_coded;
    store(latent, at, *symbol, mean_code(latent.mean[at]), options, ordinal, checksum);
  });
  if (coded != size) {
    throw std::invalid_argument("the chunk codes " + std::to_string(coded) + " symbols, not " + std::to_string(size));
  }
  return checksum;
}

}  // namespace condic
