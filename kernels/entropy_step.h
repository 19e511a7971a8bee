// The entropy-parameter step: between the graph that predicts a chunk and the coder that codes it.
//
// A latent has shape [C, H, W]. Its chunk is a list of boxes; the elements of a chunk are ordered box by box, and
// within a box by channel, row and column. For each element a context graph predicts the mean in units of 1/16 (mu16)
// and the index of a scale. Encoding quantises y to q = round(y - mu); decoding reads q. Elements with a scale index
// below `first_coded` are not coded: q = 0. Both then store the decoded latent in units of 1/16, 16 q + mu16, and agree
// on a checksum of it. Later graphs read it as `context_input` gives it.
//
// What is done to one element is here and runs on host and device alike; the host's loops are in entropy_chunk.h, those
// of a GPU in cuda/chunk_kernels.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "host_device.h"

namespace condic {

struct ContextOptions {
  int32_t shift;  // the latent in units of 2^shift / 16, rounded half up,
  int32_t limit;  // and clipped to -limit..limit
};

constexpr int32_t kMaxContextShift = 20;
constexpr int32_t kMaxContextLimit = 1 << 24;  // where float32 ceases to hold every integer

// Graphs hand integers over in float32. Whatever is not one is clamped and truncated; NaN becomes `low`.
CONDIC_HD int32_t to_integer(float value, float low, float high) {
  value = value > low ? value : low;
  value = value < high ? value : high;
  return static_cast<int32_t>(value);
}

CONDIC_HD int32_t mean_code(float parameter) { return to_integer(parameter, -32768.0f, 32767.0f); }

CONDIC_HD int32_t scale_index(float parameter, int32_t scales) {
  return to_integer(parameter, 0.0f, static_cast<float>(scales - 1));
}

// floor(y - mu16 / 16 + 1/2), clamped to +-32767; 0 for NaN.
CONDIC_HD int32_t quantise(float y, int32_t mu16) {
  float value = y - static_cast<float>(mu16) * 0.0625f + 0.5f;
  value = value == value ? value : 0.0f;
  value = value > -32767.0f ? value : -32767.0f;
  value = value < 32767.0f ? value : 32767.0f;
  const auto truncated = static_cast<int32_t>(value);
  return truncated - (static_cast<float>(truncated) > value ? 1 : 0);
}

CONDIC_HD int32_t decoded_latent(int32_t q, int32_t mu16) { return 16 * q + mu16; }

// The decoded latent as the real number that it stands for.
CONDIC_HD float real_latent(int32_t latent) { return static_cast<float>(latent) * 0.0625f; }

CONDIC_HD float context_input(int32_t latent, const ContextOptions& options) {
  // Shifting a negative integer right rounds towards minus infinity on every compiler that matters (and in C++20).
  const int32_t half = (1 << options.shift) >> 1;  // its bit is what rounding adds; a sum could leave 32 bits
  const int32_t rounded = (latent >> options.shift) + ((latent & half) != 0 ? 1 : 0);
  const auto limit = static_cast<float>(options.limit);
  float value = static_cast<float>(rounded);
  value = value > -limit ? value : -limit;
  return value < limit ? value : limit;
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

  CONDIC_HD size_t size() const { return channels * rows * columns; }
};

// Channels [c0, c1), rows r0, r0 + rstep, .. < r1, columns q0, q0 + qstep, .. < q1.
struct Box {
  int32_t c0, c1, r0, r1, rstep, q0, q1, qstep;

  CONDIC_HD size_t channels() const { return static_cast<size_t>(c1 - c0); }
  CONDIC_HD size_t rows() const { return (static_cast<size_t>(r1 - r0) + rstep - 1) / rstep; }
  CONDIC_HD size_t columns() const { return (static_cast<size_t>(q1 - q0) + qstep - 1) / qstep; }
  CONDIC_HD size_t size() const { return channels() * rows() * columns(); }
};

}  // namespace condic
