// A prefix sum over the blocks of one launch: the single-pass scan with decoupled look-back (Merrill and Garland,
// NVIDIA technical report NVR-2016-002).
//
// Work is cut into tiles. A block takes the next tile when it starts, not the one of its index: so a tile is only ever
// waited for by blocks that started later, whatever the order in which a GPU starts them. It publishes its tile's count
// at once, and later the count of all tiles up to its own, which it gets by adding up what the tiles before it have
// published so far. Both are written together with their meaning, as one word of 64 bits: no other memory has to be
// ordered, so relaxed accesses are enough.
#pragma once

#include "platform.h"

namespace condic {

// In device memory; all zero before the launch. One word for each tile follows.
struct Scan {
  uint32_t tickets;
  uint32_t unused;

  CONDIC_HD uint64_t* words() { return reinterpret_cast<uint64_t*>(this + 1); }
};
static_assert(sizeof(Scan) == 8, "kernels/device/launch.py counts on it");

constexpr uint64_t kOfTile = uint64_t{1} << 32;   // the word's lower half counts this tile alone,
constexpr uint64_t kUpToTile = uint64_t{2} << 32;  // this tile and all before it

// For one thread of a block.
CONDIC_DEVICE uint32_t take_tile(Scan* scan) { return atomicAdd(&scan->tickets, 1u); }

CONDIC_DEVICE void publish_count(Scan* scan, uint32_t tile, uint32_t count) {
  store_relaxed(scan->words() + tile, (tile == 0 ? kUpToTile : kOfTile) | count);
}

// For a whole warp: the count of all tiles before this one, which has been published. Publishes the count up to it.
CONDIC_DEVICE uint32_t count_before(Scan* scan, uint32_t tile, uint32_t count) {
  uint32_t sum = 0;
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
    sum += sum_of_warp(lane_of_thread() <= nearest ? static_cast<uint32_t>(word) : 0);
  }
  if (tile > 0 && lane_of_thread() == 0) store_relaxed(scan->words() + tile, kUpToTile | (sum + count));
  return sum;
}

// In a later launch.
CONDIC_DEVICE uint32_t known_count_before(Scan* scan, uint32_t tile) {
  return tile == 0 ? 0 : static_cast<uint32_t>(scan->words()[tile - 1]);
}

}  // namespace condic
