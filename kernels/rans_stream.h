// The entropy coder's payload: lanes of rANS states, their words, and the escaped values.
//
// Lanes. A stream has G groups of 2^k lanes, L = G * 2^k lanes in all; a lane is one rANS state. A stream is coded in
// chunks, one after the other, the states running on from chunk to chunk. Symbol i of a chunk belongs to lane i mod L,
// and lane l to group l div 2^k, so every chunk starts at lane 0. A group decodes in steps, one symbol per lane and
// step; the lanes that need a word after a step take the next words of their group in the order of the lanes. (A GPU
// warp finds each lane's word by ballot and population count.) The encoder runs the same steps backwards, from states
// of 2^16, to which decoding must return.
//
// Escapes. A value beyond its table's radius is coded as the table's escape symbol; the value itself is appended to the
// payload, so that lanes never diverge. Escaped values are in coding order: by chunk, then by position in the chunk.
//
// Payload, version 1, little-endian. A stream without symbols is a payload of 0 bytes. Any other:
//
//   uint8        bits 0-2: k (0 to 5); bit 3: G > 1; bit 4: there are escapes; bits 5-7: 0
//   uint8        G - 1 (1 to 255)                                                        only if bit 3 is set
//   LEB128       number of escapes E (1 to 2^28 - 1, at most 4 bytes, shortest form)     only if bit 4 is set
//   uint32[G-1]  words of each group but the last, whose number the payload's size implies
//   G times      uint32[2^k] lane states, lane by lane; then the group's words, uint16 each
//   int16[E]     escaped values
//
// A valid payload has no byte left over. How many lanes and groups to use is the encoder's choice; see `choose_lanes`.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "rans.h"
#include "rans_payload.h"
#include "rans_tables.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the payload is read and written in place: a little-endian machine is needed"
#endif

namespace condic {

template <class T>
T load(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

struct Chunk {
  const int16_t* symbols;
  const uint8_t* indexes;  // table of each symbol
  size_t size;
};

class Encoder {
 public:
  // Throws std::invalid_argument if an index names no table.
  Encoder(const Tables& tables, const std::vector<Chunk>& chunks) : tables_(tables) {
    size_t total = 0;
    for (const Chunk& chunk : chunks) total += chunk.size;
    entries_.reset(new uint32_t[total]);
    for (const Chunk& chunk : chunks) resolve(chunk);
    lanes_ = choose_lanes(size_, cost_ / (8 * 256));
  }

  std::vector<uint8_t> payload() const {
    std::vector<uint8_t> bytes;
    if (size_ == 0) return bytes;
    put_header(bytes);
    size_t room = 0;  // for a group's words; one more is written to and not kept
    for (const size_t size : chunk_sizes_) room += (size + lanes_.total() - 1) / lanes_.total() * lanes_.per_group();
    const std::unique_ptr<uint16_t[]> scratch(new uint16_t[lanes_.groups * ++room]);
    const auto end_of = [&](size_t group) { return scratch.get() + (group + 1) * room; };
    std::vector<uint16_t*> words;  // written downwards
    for (size_t group = 0; group < lanes_.groups; ++group) words.push_back(end_of(group));
    std::vector<uint32_t> states(lanes_.total(), kStateLow);
    push_chunks(states.data(), words.data());

    for (size_t group = 0; group + 1 < lanes_.groups; ++group) {
      const auto count = static_cast<uint32_t>(end_of(group) - words[group]);
      append(bytes, &count, 1);
    }
    for (size_t group = 0; group < lanes_.groups; ++group) {
      append(bytes, &states[group << lanes_.log2], lanes_.per_group());
      append(bytes, words[group], end_of(group) - words[group]);
    }
    append(bytes, escapes_.data(), escapes_.size());
    return bytes;
  }

 private:
  // Turns a chunk's symbols into table entries, sets escapes aside and adds up the information.
  void resolve(const Chunk& chunk) {
    const PushEntry* const push = tables_.push_entries();
    const size_t tables = tables_.count();
    uint32_t* const entries = entries_.get() + size_;
    uint64_t cost = 0;
    for (size_t i = 0; i < chunk.size; ++i) {
      const uint8_t table = chunk.indexes[i];
      if (table >= tables) throw std::invalid_argument("an index names a table that does not exist");
      const uint32_t entry = tables_.entry_of(table, chunk.symbols[i]);
      if (tables_.is_escape(table, entry)) escapes_.push_back(chunk.symbols[i]);
      cost += push[entry].cost;
      entries[i] = entry;
    }
    cost_ += cost;
    size_ += chunk.size;
    chunk_sizes_.push_back(chunk.size);
    if (escapes_.size() > kMaxEscapes) throw std::invalid_argument("more than 2^28 - 1 symbols are out of range");
  }

  // Pushes all symbols, the last one first.
  void push_chunks(uint32_t* states, uint16_t** words) const {
    const size_t width = lanes_.per_group();
    const uint32_t* entries = entries_.get() + size_;
    for (size_t c = chunk_sizes_.size(); c-- > 0;) {
      const size_t size = chunk_sizes_[c];
      entries -= size;
      const size_t steps = (size + width - 1) / width;  // of all groups
      size_t group = steps % lanes_.groups;
      for (size_t position = steps * width; position > 0;) {
        position -= width;
        group = (group > 0 ? group : lanes_.groups) - 1;
        push_step(entries + position, std::min(width, size - position), states + group * width, words[group]);
      }
    }
  }

  void push_step(const uint32_t* entries, size_t active, uint32_t* states, uint16_t*& words) const {
    const PushEntry* const push_entries = tables_.push_entries();
    uint16_t* next = words;
    for (size_t lane = active; lane-- > 0;) {
      const PushEntry& entry = push_entries[entries[lane]];
      uint32_t state = states[lane];
      next[-1] = static_cast<uint16_t>(state);
      const bool write = must_write(state, entry);
      next -= write;
      state = write ? state >> kWordBits : state;
      states[lane] = push(state, entry);
    }
    words = next;
  }

  void put_header(std::vector<uint8_t>& bytes) const {
    uint8_t header[kMaxHeaderBytes];
    append(bytes, header, write_payload_header(lanes_, static_cast<uint32_t>(escapes_.size()), header));
  }

  template <class T>
  static void append(std::vector<uint8_t>& bytes, const T* values, size_t count) {
    const auto* raw = reinterpret_cast<const uint8_t*>(values);
    bytes.insert(bytes.end(), raw, raw + count * sizeof(T));
  }

  const Tables& tables_;
  std::unique_ptr<uint32_t[]> entries_;  // of all chunks
  std::vector<size_t> chunk_sizes_;
  std::vector<int16_t> escapes_;
  size_t size_ = 0;
  uint64_t cost_ = 0;  // in 1/256 bit
  Lanes lanes_;
};

// Decodes a payload chunk by chunk. The payload may be anything: a wrong one gives wrong symbols or an exception
// (std::invalid_argument, here and in `decode` and `finish`), never an access out of bounds.
class Decoder {
 public:
  Decoder(const Tables& tables, const uint8_t* payload, size_t size) : tables_(tables), size_(size) {
    // A step reads at most one word per lane beyond its group's last, before the group's end is checked.
    bytes_.resize(size + 2 * kMaxLanes);
    if (size == 0) return;
    std::memcpy(bytes_.data(), payload, size);
    parse();
  }

  void decode(const uint8_t* indexes, size_t size, int16_t* symbols) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (next_escape_ > size_) fail("as was found before");
    if (size == 0) return;
    for (size_t i = 0, tables = tables_.count(); i < size; ++i) {
      if (indexes[i] >= tables) throw std::invalid_argument("an index names a table that does not exist");
    }
    if (groups_.empty()) fail("it has fewer symbols than were asked for");
    const size_t width = lanes_.per_group();
    for (size_t position = 0, group = 0; position < size; position += width) {
      pop_step(group, indexes + position, std::min(width, size - position), symbols + position);
      if (++group == lanes_.groups) group = 0;
    }
    fill_escapes(symbols, size);
  }

  void finish() {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const Group& group : groups_) {
      if (group.next != group.end) fail("words are left over");
    }
    for (const uint32_t state : states_) {
      if (state != kStateLow) fail("a lane does not end in its initial state");
    }
    if (next_escape_ != size_) fail("escaped values are left over");
  }

 private:
  struct Group {
    size_t next;  // offset in bytes_ of the next word
    size_t end;
  };

  // After an error there is nothing to go on with: every later call fails too.
  [[noreturn]] void fail(const char* reason) {
    groups_.clear();
    states_.clear();
    next_escape_ = size_ + 1;
    throw std::invalid_argument(std::string("the entropy-coded payload is damaged: ") + reason);
  }

  void parse() {
    PayloadHeader header;
    check(read_payload_header(bytes_.data(), size_, header));
    lanes_ = header.lanes;
    size_t at = header.size;
    uint64_t words_left = header.words;
    const uint8_t* const sizes = &bytes_[at];
    at += 4 * (lanes_.groups - 1);
    for (size_t group = 0; group < lanes_.groups; ++group) {
      const bool last = group + 1 == lanes_.groups;
      const uint64_t words = last ? words_left : load<uint32_t>(sizes + 4 * group);
      if (words > words_left) fail("its groups are larger than itself");
      words_left -= words;
      for (size_t lane = 0; lane < lanes_.per_group(); ++lane, at += 4) {
        states_.push_back(load<uint32_t>(&bytes_[at]));
        if (states_.back() < kStateLow) fail("a lane's state is below 2^16");
      }
      groups_.push_back({at, at + 2 * words});
      at += 2 * words;
    }
    next_escape_ = at;
  }

  void check(HeaderProblem problem) {
    switch (problem) {
      case HeaderProblem::kNone: return;
      case HeaderProblem::kFirstByte: fail("its first byte is not valid");
      case HeaderProblem::kEnds: fail("it ends within its header");
      case HeaderProblem::kGroupsForm: fail("its number of groups is not in shortest form");
      case HeaderProblem::kEscapesForm: fail("its number of escapes is not in shortest form");
      case HeaderProblem::kSize: fail("its size does not fit its header");
    }
  }

  void pop_step(size_t group, const uint8_t* indexes, size_t active, int16_t* symbols) {
    const PopTables tables = tables_.pop_tables();
    uint32_t* const states = &states_[group << lanes_.log2];
    const uint8_t* next = &bytes_[groups_[group].next];
    for (size_t lane = 0; lane < active; ++lane) {
      uint32_t state = states[lane];
      const Interval found = find_interval(tables, indexes[lane], state);
      state = pop(state, found);
      const bool read = must_read(state);
      const uint32_t appended = append_word(state, load<uint16_t>(next));
      states[lane] = read ? appended : state;
      next += read ? 2 : 0;
      symbols[lane] = found.symbol;
    }
    groups_[group].next = static_cast<size_t>(next - bytes_.data());
    if (groups_[group].next > groups_[group].end) fail("it has fewer words than its symbols need");
  }

  void fill_escapes(int16_t* symbols, size_t size) {
    constexpr size_t kBlock = 256;  // looked through at once: escapes are rare
    for (size_t begin = 0; begin < size; begin += kBlock) {
      const size_t end = std::min(size, begin + kBlock);
      size_t escapes = 0;
      for (size_t i = begin; i < end; ++i) escapes += symbols[i] == kEscape;
      for (size_t i = begin; escapes > 0; ++i) {
        if (symbols[i] != kEscape) continue;
        if (next_escape_ == size_) fail("it has fewer escaped values than its symbols need");
        symbols[i] = load<int16_t>(&bytes_[next_escape_]);
        next_escape_ += 2;
        --escapes;
      }
    }
  }

  const Tables& tables_;
  std::mutex mutex_;
  std::vector<uint8_t> bytes_;  // the payload, padded
  size_t size_;
  Lanes lanes_;
  std::vector<uint32_t> states_;  // of all lanes
  std::vector<Group> groups_;  // none where there is nothing to decode
  size_t next_escape_ = 0;  // offset in bytes_; size_ when none is left
};

}  // namespace condic
