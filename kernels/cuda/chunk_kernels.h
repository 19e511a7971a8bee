// The entropy-parameter step on a GPU: one launch per chunk to encode, two to decode. What is done to an element is in
// entropy_step.h, which the host runs too; how coded elements get into order, in look_back.h.
#pragma once

#include "chunk.h"
#include "look_back.h"
#include "rans_device.h"

namespace condic {

struct ChunkShared {
  TileCounts coded, escapes;
  uint32_t checksum;
};

// A thread's elements and their scales.
struct Items {
  uint32_t ordinal[kItems];
  Place place[kItems];
  int32_t scale[kItems];
  bool inside[kItems];  // the chunk; there may be less than a tile left
  bool coded[kItems];

  CONDIC_DEVICE Items(const ChunkTask& task, uint32_t tile) {
#pragma unroll
    for (uint32_t i = 0; i < kItems; ++i) {
      ordinal[i] = tile * kTile + place_in_tile(i);
      inside[i] = ordinal[i] < task.size;
      place[i] = inside[i] ? place_of(task, ordinal[i]) : Place{0, 0};
    }
    // In a loop of their own, the loads do not wait for each other.
    const float* const scales = task.prediction.means + task.prediction.scales_at;
    float loaded[kItems];
#pragma unroll
    for (uint32_t i = 0; i < kItems; ++i) loaded[i] = inside[i] ? scales[place[i].prediction] : 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < kItems; ++i) {
      scale[i] = inside[i] ? scale_index(loaded[i], task.scales) : 0;
      coded[i] = inside[i] && scale[i] >= task.first_coded;
    }
  }
};

// Their means.
struct Means {
  int32_t mu16[kItems];

  CONDIC_DEVICE Means(const ChunkTask& task, const Items& items) {
#pragma unroll
    for (uint32_t i = 0; i < kItems; ++i) {
      mu16[i] = items.inside[i] ? mean_code(task.prediction.means[items.place[i].prediction]) : 0;
    }
  }
};

// Stores a thread's decoded elements and adds what they give to the block's checksum.
CONDIC_DEVICE void store_decoded(const ChunkTask& task, const Items& items, const Means& means,
                                 const int32_t (&q)[kItems], uint32_t& checksum_of_block) {
  uint32_t checksum = 0;
#pragma unroll
  for (uint32_t i = 0; i < kItems; ++i) {
    if (!items.inside[i]) continue;
    const int32_t latent = decoded_latent(q[i], means.mu16[i]);
    const uint32_t at = items.place[i].latent;
    if (task.latents != nullptr) task.latents[at] = latent;
    if (task.context != nullptr) task.context[at] = context_input(latent, task.options);
    if (task.hat != nullptr) task.hat[at] = real_latent(latent);
    checksum += checksum_term(items.ordinal[i], latent);
  }
  checksum = sum_of_warp(checksum);
  if (lane_of_thread() == 0) atomicAdd(&checksum_of_block, checksum);
}

// Whether every element is coded: then where a tile begins is known, and none waits for another.
CONDIC_DEVICE bool codes_all(const ChunkTask& task) { return task.first_coded <= 0; }

// Coded elements in order: for one thread `begin_tile`, for all `share_coded`, for the first warp `find_first`, with a
// barrier after the first and the last. Then a thread's are at `before_warp` and their ranks.
CONDIC_DEVICE void begin_tile(const ChunkTask& task, TileCounts& coded) {
  coded.tile = blockIdx.x;
  if (!codes_all(task)) take_tile(task.scan, coded);
}

CONDIC_DEVICE void share_coded(const ChunkTask& task, TileCounts& coded, const Ranks& ranks) {
  if (!codes_all(task)) {
    share_counts(task.scan, coded, ranks.of_warp);
  } else if (lane_of_thread() == 0) {
    coded.of_warp[warp_of_thread()] = ranks.of_warp;
  }
}

CONDIC_DEVICE void find_first(const ChunkTask& task, TileCounts& coded) {
  uint32_t up_to = task.size;
  if (!codes_all(task)) {
    up_to = look_back(task.scan, coded);
  } else if (threadIdx.x == 0) {
    coded.before = coded.tile * kTile;
  }
  if (threadIdx.x == 0 && coded.tile + 1 == gridDim.x) task.result->coded = up_to;
}

// Puts the values of escaped symbols in place, for all threads of the grid: the n-th in coding order is the n-th at the
// payload's end. The decoder's `escapes` and `escapes_used` do not change during the launch.
CONDIC_DEVICE void fill_escapes(const ChunkTask& task, TileCounts& counts, const Items& items, int32_t (&q)[kItems]) {
  RansDecoder& decoder = *task.decoder;
  bool escaped[kItems];
#pragma unroll
  for (uint32_t i = 0; i < kItems; ++i) escaped[i] = items.coded[i] && q[i] == kEscape;
  const Ranks ranks(escaped);
  share_counts(task.escape_scan, counts, ranks.of_warp);
  if (warp_of_thread() == 0) {
    const uint32_t up_to = look_back(task.escape_scan, counts);
    if (threadIdx.x == 0 && counts.tile + 1 == gridDim.x) decoder.escapes_of_chunk = up_to;
  }
  __syncthreads();
  const uint32_t first = decoder.escapes_used + counts.before_warp();
#pragma unroll
  for (uint32_t i = 0; i < kItems; ++i) {
    if (!escaped[i]) continue;
    const uint32_t number = first + ranks.rank[i];
    if (number < decoder.escapes) {
      q[i] = static_cast<int16_t>(load_16(decoder.payload + decoder.escapes_at + size_t{2} * number));
    } else {
      atomicOr(&decoder.error, rans_error::kTooFewEscapes);
    }
  }
}

}  // namespace condic

// Quantises a chunk of y: decoded values, symbols and indexes of the coded elements in order, their number, checksum.
CONDIC_KERNEL encode_chunk(const __grid_constant__ condic::ChunkTask task) {
  using namespace condic;
  CONDIC_SHARED(ChunkShared, shared);
  if (threadIdx.x == 0) {
    begin_tile(task, shared.coded);
    shared.checksum = 0;
  }
  __syncthreads();
  const Items items(task, shared.coded.tile);
  const Means means(task, items);
  float y[kItems];
  bool finite = true;
#pragma unroll
  for (uint32_t i = 0; i < kItems; ++i) {
    y[i] = items.inside[i] ? task.y[items.place[i].latent] : 0.0f;
    finite &= is_finite(y[i]);
  }
  if (!finite && task.not_finite != nullptr) atomicOr(task.not_finite, 1u);
  const Ranks ranks(items.coded);
  share_coded(task, shared.coded, ranks);

  int32_t q[kItems];
#pragma unroll
  for (uint32_t i = 0; i < kItems; ++i) q[i] = items.coded[i] ? quantise(y[i], means.mu16[i]) : 0;
  store_decoded(task, items, means, q, shared.checksum);
  if (warp_of_thread() == 0) find_first(task, shared.coded);
  __syncthreads();

  const uint32_t first = shared.coded.before_warp();
#pragma unroll
  for (uint32_t i = 0; i < kItems; ++i) {
    if (!items.coded[i]) continue;
    task.symbols[first + ranks.rank[i]] = static_cast<int16_t>(q[i]);
    task.indexes[first + ranks.rank[i]] = static_cast<uint8_t>(items.scale[i]);
  }
  if (threadIdx.x == 0) atomicAdd(&task.result->checksum, shared.checksum);
}

// The indexes of a chunk's coded elements in order, and their number: what its symbols are decoded with.
CONDIC_KERNEL chunk_indexes(const __grid_constant__ condic::ChunkTask task) {
  using namespace condic;
  CONDIC_SHARED(ChunkShared, shared);
  if (threadIdx.x == 0) begin_tile(task, shared.coded);
  __syncthreads();
  const Items items(task, shared.coded.tile);
  const Ranks ranks(items.coded);
  share_coded(task, shared.coded, ranks);
  if (warp_of_thread() == 0) find_first(task, shared.coded);
  __syncthreads();

  const uint32_t first = shared.coded.before_warp();
#pragma unroll
  for (uint32_t i = 0; i < kItems; ++i) {
    if (items.coded[i]) task.indexes[first + ranks.rank[i]] = static_cast<uint8_t>(items.scale[i]);
  }
}

// Decoded values of a chunk from its symbols, and their checksum. Follows chunk_indexes, whose counts it uses. With a
// decoder, symbols come from rans_pop; the values of those that escaped are filled in.
CONDIC_KERNEL decode_chunk(const __grid_constant__ condic::ChunkTask task) {
  using namespace condic;
  CONDIC_SHARED(ChunkShared, shared);
  const bool has_decoder = task.decoder != nullptr;
  if (threadIdx.x == 0) {
    shared.escapes.tile = blockIdx.x;
    if (has_decoder) take_tile(task.escape_scan, shared.escapes);
    const uint32_t tile = shared.escapes.tile;
    shared.coded.before = codes_all(task) ? tile * kTile : known_before(task.scan, tile);
    shared.checksum = 0;
  }
  __syncthreads();
  const Items items(task, shared.escapes.tile);
  const Means means(task, items);
  const Ranks ranks(items.coded);
  if (lane_of_thread() == 0) shared.coded.of_warp[warp_of_thread()] = ranks.of_warp;
  __syncthreads();

  const uint32_t first = shared.coded.before_warp();
  int32_t q[kItems];
#pragma unroll
  for (uint32_t i = 0; i < kItems; ++i) q[i] = items.coded[i] ? task.symbols[first + ranks.rank[i]] : 0;
  if (has_decoder) fill_escapes(task, shared.escapes, items, q);
  store_decoded(task, items, means, q, shared.checksum);
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(&task.result->checksum, shared.checksum);
}
