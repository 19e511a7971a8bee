// The entropy-parameter step on a GPU: one launch per chunk to encode, two to decode. What is done to an element is in
// entropy_step.h, which the host runs too.
//
// A block does a tile of kTile consecutive elements, a warp a run of them, of which lane l has elements l, l + 32, ..:
// what a warp reads lies side by side, and ballots give the order of the coded elements.
#pragma once

#include "chunk.h"
#include "look_back.h"

namespace condic {

constexpr uint32_t kItems = 4;  // elements of a thread
constexpr uint32_t kTile = kThreads * kItems;

struct ChunkShared {
  uint32_t tile;
  uint32_t first;          // coded elements of the chunk before this tile
  uint32_t checksum;
  uint32_t coded[kWarps];  // coded elements of each warp
};

// A thread's elements.
struct Items {
  uint32_t ordinal[kItems];
  Place place[kItems];
  int32_t scale[kItems];
  bool inside[kItems];  // the chunk; there may be less than a tile left
  bool coded[kItems];
  uint32_t rank[kItems];  // of a coded element, within its warp's

  CONDIC_DEVICE Items(const ChunkTask& task, uint32_t tile) {
#pragma unroll
    for (uint32_t i = 0; i < kItems; ++i) {
      ordinal[i] = tile * kTile + (warp_of_thread() * kItems + i) * kLanes + lane_of_thread();
      inside[i] = ordinal[i] < task.size;
      place[i] = inside[i] ? place_of(task, ordinal[i]) : Place{0, 0};
      const float* const scales = task.prediction.means + task.prediction.scales_at;
      scale[i] = inside[i] ? scale_index(scales[place[i].prediction], task.scales) : 0;
    }
  }

  // Finds ranks; returns the number of coded elements of the warp.
  CONDIC_DEVICE uint32_t find_ranks(int32_t first_coded) {
    uint32_t count = 0;
#pragma unroll
    for (uint32_t i = 0; i < kItems; ++i) {
      coded[i] = inside[i] && scale[i] >= first_coded;
      const uint32_t ballot = __ballot_sync(kAllLanes, coded[i]);
      rank[i] = count + votes_below(ballot);
      count += __popc(ballot);
    }
    return count;
  }
};

// Mean codes of a thread's elements.
struct Means {
  int32_t mu16[kItems];

  CONDIC_DEVICE Means(const ChunkTask& task, const Items& items) {
#pragma unroll
    for (uint32_t i = 0; i < kItems; ++i) {
      mu16[i] = items.inside[i] ? mean_code(task.prediction.means[items.place[i].prediction]) : 0;
    }
  }
};

CONDIC_DEVICE uint32_t coded_of_block(const ChunkShared& shared) {
  uint32_t sum = 0;
  for (uint32_t warp = 0; warp < kWarps; ++warp) sum += shared.coded[warp];
  return sum;
}

// Place in the chunk of the first coded element of this thread's warp.
CONDIC_DEVICE uint32_t first_of_warp(const ChunkShared& shared) {
  uint32_t first = shared.first;
  for (uint32_t warp = 0; warp < warp_of_thread(); ++warp) first += shared.coded[warp];
  return first;
}

// Stores a decoded element; returns its share of the checksum.
CONDIC_DEVICE uint32_t store_decoded(const ChunkTask& task, uint32_t ordinal, uint32_t at, int32_t latent) {
  if (task.latents != nullptr) task.latents[at] = latent;
  if (task.context != nullptr) task.context[at] = context_input(latent, task.options);
  if (task.hat != nullptr) task.hat[at] = real_latent(latent);
  return checksum_term(ordinal, latent);
}

// For a block's first warp, once every warp has counted: publishes the tile's count and finds what is before it.
CONDIC_DEVICE void look_back(const ChunkTask& task, ChunkShared& shared) {
  const uint32_t coded = coded_of_block(shared);
  const uint32_t before = count_before(task.scan, shared.tile, coded);
  if (lane_of_thread() == 0) {
    shared.first = before;
    if (shared.tile + 1 == gridDim.x) task.result->coded = before + coded;
  }
}

CONDIC_DEVICE void begin_tile(const ChunkTask& task, ChunkShared& shared) {
  if (threadIdx.x == 0) {
    shared.tile = take_tile(task.scan);
    shared.checksum = 0;
  }
  __syncthreads();
}

// Shares the warps' counts; publishes their sum as early as possible, since later tiles wait for it.
CONDIC_DEVICE void share_counts(const ChunkTask& task, ChunkShared& shared, uint32_t coded) {
  if (lane_of_thread() == 0) shared.coded[warp_of_thread()] = coded;
  __syncthreads();
  if (threadIdx.x == 0) publish_count(task.scan, shared.tile, coded_of_block(shared));
}

}  // namespace condic

// Quantises a chunk of y: decoded values, symbols and indexes of the coded elements in order, their number, checksum.
CONDIC_KERNEL encode_chunk(const __grid_constant__ condic::ChunkTask task) {
  using namespace condic;
  CONDIC_SHARED(ChunkShared, shared);
  begin_tile(task, shared);
  Items items(task, shared.tile);
  const Means means(task, items);
  float y[kItems];
#pragma unroll
  for (uint32_t i = 0; i < kItems; ++i) y[i] = items.inside[i] ? task.y[items.place[i].latent] : 0.0f;
  share_counts(task, shared, items.find_ranks(task.first_coded));

  int32_t q[kItems];
  uint32_t checksum = 0;
#pragma unroll
  for (uint32_t i = 0; i < kItems; ++i) {
    q[i] = items.coded[i] ? quantise(y[i], means.mu16[i]) : 0;
    if (items.inside[i]) {
      const int32_t latent = decoded_latent(q[i], means.mu16[i]);
      checksum += store_decoded(task, items.ordinal[i], items.place[i].latent, latent);
    }
  }
  checksum = sum_of_warp(checksum);
  if (lane_of_thread() == 0) atomicAdd(&shared.checksum, checksum);
  if (warp_of_thread() == 0) look_back(task, shared);
  __syncthreads();

  const uint32_t first = first_of_warp(shared);
#pragma unroll
  for (uint32_t i = 0; i < kItems; ++i) {
    if (!items.coded[i]) continue;
    task.symbols[first + items.rank[i]] = static_cast<int16_t>(q[i]);
    task.indexes[first + items.rank[i]] = static_cast<uint8_t>(items.scale[i]);
  }
  if (threadIdx.x == 0) atomicAdd(&task.result->checksum, shared.checksum);
}

// The indexes of a chunk's coded elements in order, and their number: what its symbols are decoded with.
CONDIC_KERNEL chunk_indexes(const __grid_constant__ condic::ChunkTask task) {
  using namespace condic;
  CONDIC_SHARED(ChunkShared, shared);
  begin_tile(task, shared);
  Items items(task, shared.tile);
  share_counts(task, shared, items.find_ranks(task.first_coded));
  if (warp_of_thread() == 0) look_back(task, shared);
  __syncthreads();

  const uint32_t first = first_of_warp(shared);
#pragma unroll
  for (uint32_t i = 0; i < kItems; ++i) {
    if (items.coded[i]) task.indexes[first + items.rank[i]] = static_cast<uint8_t>(items.scale[i]);
  }
}

// Decoded values of a chunk from its symbols, and their checksum. Follows chunk_indexes, whose counts it uses.
CONDIC_KERNEL decode_chunk(const __grid_constant__ condic::ChunkTask task) {
  using namespace condic;
  CONDIC_SHARED(ChunkShared, shared);
  const uint32_t tile = blockIdx.x;
  Items items(task, tile);
  const Means means(task, items);
  const uint32_t coded = items.find_ranks(task.first_coded);
  if (threadIdx.x == 0) {
    shared.first = known_count_before(task.scan, tile);
    shared.checksum = 0;
  }
  if (lane_of_thread() == 0) shared.coded[warp_of_thread()] = coded;
  __syncthreads();

  const uint32_t first = first_of_warp(shared);
  uint32_t checksum = 0;
#pragma unroll
  for (uint32_t i = 0; i < kItems; ++i) {
    if (!items.inside[i]) continue;
    const int32_t q = items.coded[i] ? task.symbols[first + items.rank[i]] : 0;
    checksum += store_decoded(task, items.ordinal[i], items.place[i].latent, decoded_latent(q, means.mu16[i]));
  }
  checksum = sum_of_warp(checksum);
  if (lane_of_thread() == 0) atomicAdd(&shared.checksum, checksum);
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(&task.result->checksum, shared.checksum);
}
