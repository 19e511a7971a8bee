// The entropy coder's tables and state in device memory. What a payload is, rans_stream.h says.
#pragma once

#include "platform.h"
#include "rans.h"
#include "rans_payload.h"

namespace condic {

struct RansTables {
  PopTables pop;
  const PushEntry* push;
  const uint32_t* radius;
  const Look* looks;  // at a multiple of 16
  const TableLooks* table_looks;
  uint32_t look_count;  // even
  uint32_t count;
};

// What can be wrong, as bits; kernels/device/rans.py has the words for them.
namespace rans_error {
constexpr uint32_t kBadHeader = 1;
constexpr uint32_t kNoSymbols = 2;
constexpr uint32_t kTooFewWords = 4;
constexpr uint32_t kTooFewEscapes = 8;
constexpr uint32_t kWordsLeft = 16;
constexpr uint32_t kWrongEndState = 32;
constexpr uint32_t kEscapesLeft = 64;
constexpr uint32_t kTooManyEscapes = 128;  // to encode
}  // namespace rans_error

// Any address.
CONDIC_DEVICE uint32_t load_16(const uint8_t* bytes) { return bytes[0] | uint32_t{bytes[1]} << 8; }
CONDIC_DEVICE uint32_t load_32(const uint8_t* bytes) { return load_16(bytes) | load_16(bytes + 2) << 16; }
CONDIC_DEVICE void store_16(uint8_t* bytes, uint32_t value) {
  bytes[0] = static_cast<uint8_t>(value);
  bytes[1] = static_cast<uint8_t>(value >> 8);
}
CONDIC_DEVICE void store_32(uint8_t* bytes, uint32_t value) {
  store_16(bytes, value);
  store_16(bytes + 2, value >> 16);
}

// A warp codes a group. Few groups are spread over as many multiprocessors.
CONDIC_DEVICE uint32_t group_of_warp() { return same_in_warp(warp_of_thread()) * gridDim.x + blockIdx.x; }

struct RansGroup {
  uint32_t first;  // offset in the payload of its words
  uint32_t words;
  uint32_t next;  // number of the next word
};

// Decoding of a payload, between its chunks.
struct RansDecoder {
  uint32_t error;  // of rans_error
  uint32_t log2_lanes;
  uint32_t groups;  // 0 where there is nothing to decode
  uint32_t escapes;
  uint32_t escapes_at;        // offset in the payload
  uint32_t escapes_used;      // by the chunks before the one that was decoded last,
  uint32_t escapes_of_chunk;  // and by that
  uint32_t unused;
  const uint8_t* payload;
  RansGroup group[kMaxGroups];
  uint32_t states[kMaxGroups * kMaxLanes];
};

// Encoding of a stream: all zero at first.
struct RansEncoder {
  uint32_t error;  // of rans_error
  uint32_t size;  // of the payload
  unsigned long long cost;  // of all symbols, in 1/256 bit
  uint32_t escapes;
  uint32_t log2_lanes;
  uint32_t groups;  // 0 where there is nothing to encode
  uint32_t room;    // for the words of a group
  uint32_t words[kMaxGroups];
  uint32_t states[kMaxGroups * kMaxLanes];
};

}  // namespace condic
