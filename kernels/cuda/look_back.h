// Putting in order what the threads of many blocks pick out of a sequence: each learns how much was picked before it.
//
// Within a warp, ballots count; between warps, shared memory; between blocks, the single-pass scan with decoupled
// look-back (Merrill and Garland, NVIDIA technical report NVR-2016-002). The sequence is cut into tiles. A block takes
// the next tile when it starts, not the one of its index: so a tile is only ever waited for by blocks that started
// later, in whatever order a GPU starts them. It publishes its tile's count at once, and later the count of all tiles
// up to its own, which it gets by adding up what the tiles before it have published so far. Count and meaning are one
// word of 64 bits, written and read whole: no other memory has to be ordered, so relaxed accesses are enough.
#pragma once

#include "platform.h"

namespace condic {

constexpr uint32_t kItems = 4;  // elements of a thread
constexpr uint32_t kTile = kThreads * kItems;

// A thread's i-th element, by its place in the tile: a warp has a run of elements, and its lanes' lie side by side.
CONDIC_DEVICE uint32_t place_in_tile(uint32_t i) {
  return (warp_of_thread() * kItems + i) * kLanes + lane_of_thread();
}

// In device memory; all zero before the launch. One word for each tile follows.
struct Scan {
  uint32_t tickets;
  uint32_t unused;

  CONDIC_HD uint64_t* words() { return reinterpret_cast<uint64_t*>(this + 1); }
};
static_assert(sizeof(Scan) == 8, "kernels/device/launch.py counts on it");

constexpr uint64_t kOfTile = uint64_t{1} << 32;    // the word's lower half counts this tile alone,
constexpr uint64_t kUpToTile = uint64_t{2} << 32;  // this tile and all before it

// A block's counts, in shared memory.
struct TileCounts {
  uint32_t tile;
  uint32_t before;            // picked in tiles before this one
  uint32_t of_warp[kWarps];   // picked in this tile

  CONDIC_DEVICE uint32_t of_tile() const {
    uint32_t sum = 0;
    for (uint32_t warp = 0; warp < kWarps; ++warp) sum += of_warp[warp];
    return sum;
  }
  // Picked before this thread's warp.
  CONDIC_DEVICE uint32_t before_warp() const {
    uint32_t sum = before;
    for (uint32_t warp = 0; warp < warp_of_thread(); ++warp) sum += of_warp[warp];
    return sum;
  }
};

// Which of a thread's elements are picked, and how many of its warp are before each.
struct Ranks {
  uint32_t rank[kItems];
  uint32_t of_warp = 0;

  CONDIC_DEVICE explicit Ranks(const bool (&picked)[kItems]) {
#pragma unroll
    for (uint32_t i = 0; i < kItems; ++i) {
      const uint32_t ballot = __ballot_sync(kAllLanes, picked[i]);
      rank[i] = of_warp + votes_below(ballot);
      of_warp += __popc(ballot);
    }
  }
};

// For one thread of a block; a barrier has to follow.
CONDIC_DEVICE void take_tile(Scan* scan, TileCounts& counts) { counts.tile = atomicAdd(&scan->tickets, 1u); }

// For all threads. Publishes the tile's count as early as possible, since later tiles wait for it.
CONDIC_DEVICE void share_counts(Scan* scan, TileCounts& counts, uint32_t of_warp) {
  if (lane_of_thread() == 0) counts.of_warp[warp_of_thread()] = of_warp;
  __syncthreads();
  if (threadIdx.x == 0) {
    store_relaxed(scan->words() + counts.tile, (counts.tile == 0 ? kUpToTile : kOfTile) | counts.of_tile());
  }
}

// For the block's first warp, after share_counts: finds what is before the tile; a barrier has to follow. Returns the
// count up to the tile.
CONDIC_DEVICE uint32_t look_back(Scan* scan, TileCounts& counts) {
  const uint32_t tile = counts.tile;
  uint32_t before = 0;
  bool complete = tile == 0;
  for (uint32_t end = tile; !complete; end -= kLanes) {  // tiles before `end` are not in the sum
    uint64_t word = kUpToTile;                            // before the first tile
    if (lane_of_thread() < end) {
      const uint64_t* const address = scan->words() + (end - 1 - lane_of_thread());
      while ((word = load_relaxed(address)) == 0) wait_a_little();
    }
    const uint32_t ballot = __ballot_sync(kAllLanes, word >= kUpToTile);
    complete = ballot != 0;
    const uint32_t nearest = complete ? __ffs(ballot) - 1 : kLanes - 1;
    before += sum_of_warp(lane_of_thread() <= nearest ? static_cast<uint32_t>(word) : 0);
  }
  const uint32_t up_to = before + counts.of_tile();
  if (lane_of_thread() == 0) {
    counts.before = before;
    if (tile > 0) store_relaxed(scan->words() + tile, kUpToTile | up_to);
  }
  return up_to;
}

// What look_back found for a tile, in a later launch.
CONDIC_DEVICE uint32_t known_before(Scan* scan, uint32_t tile) {
  return tile == 0 ? 0 : static_cast<uint32_t>(scan->words()[tile - 1]);
}

}  // namespace condic
