// The head of the entropy coder's payload, and how lanes are chosen: the same on host and device. rans_stream.h
// describes the payload.
#pragma once

#include <cstddef>
#include <cstdint>

#include "host_device.h"

namespace condic {

constexpr uint32_t kMaxLog2Lanes = 5;
constexpr uint32_t kMaxLanes = 1u << kMaxLog2Lanes;
constexpr uint32_t kMaxGroups = 256;
constexpr uint32_t kMaxEscapes = (1u << 28) - 1;
constexpr uint8_t kSeveralGroups = 8;
constexpr uint8_t kHasEscapes = 16;
constexpr uint32_t kMaxHeaderBytes = 6;

struct Lanes {
  uint32_t log2 = 0;  // lanes of a group
  uint32_t groups = 1;

  CONDIC_HD uint32_t per_group() const { return 1u << log2; }
  CONDIC_HD uint32_t total() const { return groups << log2; }
};

// Information, in bytes, that pays for a lane, and for a group of 32.
constexpr uint32_t kLaneBytes = 1280;
constexpr uint32_t kGroupBytes = 30 << 10;
// Symbols that pay for one of up to 4 lanes where they hold less than 1/128 bit each.
constexpr uint32_t kLaneSymbols = 16 << 10;

// A GPU decodes the faster the more lanes there are, one symbol of each at a time; a CPU decodes 32 as fast as more. A
// lane costs about 3 bytes, and the arithmetic loses about 0.045 %, so lanes are given by information. A payload of up
// to 8 lanes stays within 0.1 % plus 64 bytes of what its symbols hold, one of 32 within 0.25 % plus 64, one of
// several groups within 0.4 % plus 64. Sixteen are left out: what pays for them is about where a GPU's time for a
// latent begins to show beside the networks'. Many symbols that hold nearly nothing, as of a latent that a model does not
// use, get up to 4: one lane would take a step for each, and a GPU some milliseconds for those of a large image.
CONDIC_HD Lanes choose_lanes(uint64_t symbols, uint64_t information_bytes) {
  Lanes lanes;
  const uint64_t least = symbols < information_bytes ? symbols : information_bytes;
  const uint64_t groups = (least + kGroupBytes / 2) / kGroupBytes;
  if (groups > 1) {
    lanes.log2 = kMaxLog2Lanes;
    lanes.groups = groups < kMaxGroups ? static_cast<uint32_t>(groups) : kMaxGroups;
  } else {
    while (lanes.log2 < kMaxLog2Lanes && information_bytes >> (lanes.log2 + 1) >= kLaneBytes) ++lanes.log2;
    if (lanes.log2 + 1 == kMaxLog2Lanes) lanes.log2 = kMaxLog2Lanes;
    if (symbols >> 10 < information_bytes) return lanes;
    while (lanes.log2 < 2 && symbols >> (lanes.log2 + 1) >= kLaneSymbols) ++lanes.log2;
  }
  return lanes;
}

// Writes the first bytes of a payload; returns their number, at most kMaxHeaderBytes.
CONDIC_HD uint32_t write_payload_header(const Lanes& lanes, uint32_t escapes, uint8_t* bytes) {
  uint32_t size = 0;
  bytes[size++] = static_cast<uint8_t>(lanes.log2 | (lanes.groups > 1 ? kSeveralGroups : 0) |
                                       (escapes > 0 ? kHasEscapes : 0));
  if (lanes.groups > 1) bytes[size++] = static_cast<uint8_t>(lanes.groups - 1);
  if (escapes == 0) return size;
  for (; escapes > 127; escapes >>= 7) bytes[size++] = static_cast<uint8_t>(128 | (escapes & 127));
  bytes[size++] = static_cast<uint8_t>(escapes);
  return size;
}

struct PayloadHeader {
  Lanes lanes;
  uint32_t escapes = 0;
  uint32_t size = 0;     // of the header, up to the words of each group
  uint64_t words = 0;    // of all groups
};

enum class HeaderProblem { kNone, kFirstByte, kEnds, kGroupsForm, kEscapesForm, kSize };

// Reads the first bytes of a payload that is not empty.
CONDIC_HD HeaderProblem read_payload_header(const uint8_t* bytes, uint64_t size, PayloadHeader& header) {
  uint32_t at = 0;
  const uint8_t flags = bytes[at++];
  header.lanes.log2 = flags & 7;
  if (header.lanes.log2 > kMaxLog2Lanes || flags >> 5) return HeaderProblem::kFirstByte;
  if (flags & kSeveralGroups) {
    if (at >= size) return HeaderProblem::kEnds;
    header.lanes.groups = 1u + bytes[at++];
    if (header.lanes.groups == 1) return HeaderProblem::kGroupsForm;
  }
  if (flags & kHasEscapes) {
    uint8_t byte = 128;
    for (uint32_t shift = 0; byte >= 128; shift += 7) {
      if (shift == 28) return HeaderProblem::kEscapesForm;
      if (at >= size) return HeaderProblem::kEnds;
      byte = bytes[at++];
      header.escapes |= static_cast<uint32_t>(byte & 127) << shift;
    }
    if (byte == 0) return HeaderProblem::kEscapesForm;
  }
  header.size = at;
  const uint64_t fixed =
      at + 4 * (uint64_t{header.lanes.groups} - 1) + 4 * uint64_t{header.lanes.total()} + 2 * uint64_t{header.escapes};
  if (size < fixed || (size - fixed) % 2) return HeaderProblem::kSize;
  header.words = (size - fixed) / 2;
  return HeaderProblem::kNone;
}

}  // namespace condic
