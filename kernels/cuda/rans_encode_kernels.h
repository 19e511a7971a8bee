// Entropy coding of a stream, when all its chunks have been quantised: rans_resolve, rans_push, rans_pack. The bytes
// are those of the host's Encoder.
#pragma once

#include "chunk.h"
#include "look_back.h"
#include "rans_device.h"

namespace condic {

constexpr uint32_t kMaxChunks = 64;
constexpr uint32_t kParts = 16;  // blocks that pack a group

struct RansEncodeTask {
  RansTables tables;
  const int16_t* symbols;      // chunk c's begin at begin[c], as do
  const uint8_t* indexes;      // their tables
  uint32_t* entries;           // and, once resolved, their places in the tables
  const ChunkResult* results;  // of each chunk
  RansEncoder* encoder;
  Scan* scan;        // zero before rans_resolve
  int16_t* escapes;
  uint16_t* words;   // of all groups; each group's are written downwards from the end of its part
  uint8_t* payload;
  uint32_t chunk_count;
  uint32_t begin[kMaxChunks];
  uint32_t first_tile[kMaxChunks];  // the tiles that rans_resolve cuts a chunk's room into begin with this one
};

struct ResolveShared {
  TileCounts escapes;
  uint32_t cost;
};

static_assert(sizeof(PushEntry) == sizeof(uint4), "an entry is loaded at once");

// A table's entry as it is loaded: 16 bytes at once, which nothing looks at before the entry is needed. Zeros are none.
CONDIC_DEVICE PushEntry entry_of(const uint4& loaded) {
  return {uint64_t{loaded.y} << 32 | loaded.x, static_cast<uint16_t>(loaded.z), static_cast<uint16_t>(loaded.z >> 16),
          static_cast<uint16_t>(loaded.w)};
}

// The sum over chunks of `value(coded symbols)`, for all lanes of a warp.
template <class Value>
CONDIC_DEVICE uint32_t sum_over_chunks(const RansEncodeTask& task, Value value) {
  uint32_t sum = 0;
  for (uint32_t c = lane_of_thread(); c < task.chunk_count; c += kLanes) sum += value(task.results[c].coded);
  return sum_of_warp(sum);
}

}  // namespace condic

// Finds the table entry of each symbol, what they cost together, and the values that escape, in order.
CONDIC_KERNEL rans_resolve(const __grid_constant__ condic::RansEncodeTask task) {
  using namespace condic;
  CONDIC_SHARED(ResolveShared, shared);
  if (threadIdx.x == 0) {
    take_tile(task.scan, shared.escapes);
    shared.cost = 0;
  }
  __syncthreads();
  const uint32_t tile = shared.escapes.tile;
  uint32_t chunk = 0;
  while (chunk + 1 < task.chunk_count && tile >= task.first_tile[chunk + 1]) ++chunk;
  const uint32_t first = (tile - task.first_tile[chunk]) * kTile;
  const uint32_t size = task.results[chunk].coded;

  int16_t symbol[kItems];
  bool escaped[kItems];
  uint32_t cost = 0;
#pragma unroll
  for (uint32_t i = 0; i < kItems; ++i) {
    const uint32_t position = first + place_in_tile(i);
    escaped[i] = false;
    symbol[i] = 0;
    if (position >= size) continue;
    const uint32_t at = task.begin[chunk] + position;
    const uint32_t index = task.indexes[at] < task.tables.count ? task.indexes[at] : 0;
    const uint32_t radius = task.tables.radius[index];
    symbol[i] = task.symbols[at];
    const uint32_t rank = rank_of(symbol[i], radius);
    const uint32_t entry = task.tables.pop.first[index] + rank;
    escaped[i] = rank == 2 * radius + 1;
    cost += task.tables.push[entry].cost;
    task.entries[at] = entry;
  }
  const Ranks ranks(escaped);
  share_counts(task.scan, shared.escapes, ranks.of_warp);
  cost = sum_of_warp(cost);
  if (lane_of_thread() == 0) atomicAdd(&shared.cost, cost);
  if (warp_of_thread() == 0) {
    const uint32_t up_to = look_back(task.scan, shared.escapes);
    if (threadIdx.x == 0 && tile + 1 == gridDim.x) {
      task.encoder->escapes = up_to;
      if (up_to > kMaxEscapes) atomicOr(&task.encoder->error, rans_error::kTooManyEscapes);
    }
  }
  __syncthreads();
  const uint32_t before = shared.escapes.before_warp();
#pragma unroll
  for (uint32_t i = 0; i < kItems; ++i) {
    if (escaped[i]) task.escapes[before + ranks.rank[i]] = symbol[i];
  }
  if (threadIdx.x == 0) atomicAdd(&task.encoder->cost, static_cast<unsigned long long>(shared.cost));
}

// Pushes all symbols of each group, the last one first.
CONDIC_SERIAL_KERNEL rans_push(const __grid_constant__ condic::RansEncodeTask task) {
  using namespace condic;
  constexpr uint32_t kAhead = 4;  // steps whose table entries are fetched at once, before they are needed
  RansEncoder& encoder = *task.encoder;
  const uint32_t lane = lane_of_thread(), group = group_of_warp();
  const uint32_t symbols = sum_over_chunks(task, [](uint32_t coded) { return coded; });
  Lanes lanes = choose_lanes(symbols, encoder.cost / (8 * 256));
  lanes = {same_in_warp(lanes.log2), same_in_warp(lanes.groups)};
  const uint32_t width = lanes.per_group(), total = lanes.total();
  const uint32_t room = sum_over_chunks(task, [&](uint32_t coded) { return (coded + total - 1) / total * width; });
  if (group == 0 && lane == 0) {
    encoder.log2_lanes = lanes.log2;
    encoder.groups = symbols > 0 ? lanes.groups : 0;
    encoder.room = room;
  }
  if (same_in_warp(symbols) == 0 || group >= lanes.groups) return;

  const auto* const table = reinterpret_cast<const uint4*>(task.tables.push);
  // A lane without a symbol has no entry, which leaves its state as it is.
  constexpr uint32_t kNoPlace = 0xFFFFFFFFu;
  uint16_t* const end = task.words + size_t{room} * (group + 1);
  uint16_t* written = end;  // so far, downwards
  uint32_t state = kStateLow;
  for (uint32_t chunk = task.chunk_count; chunk-- > 0;) {
    const uint32_t size = same_in_warp(task.results[chunk].coded);
    const uint32_t* const places = task.entries + task.begin[chunk];
    const uint32_t first = group * width;  // position of the group's first symbol
    const uint32_t steps = size > first ? (size - first + total - 1) / total : 0;
    const auto is_active = [&](uint32_t step) {
      return step < steps && lane < width && first + step * total + lane < size;
    };
    // Steps are taken kAhead at a time; a batch before the first one has numbers far beyond `steps`.
    const auto fetch_places = [&](uint32_t batch, uint32_t (&fetched)[kAhead]) {
#pragma unroll
      for (uint32_t i = 0; i < kAhead; ++i) {
        const uint32_t step = batch * kAhead + i;
        fetched[i] = is_active(step) ? places[first + step * total + lane] : kNoPlace;
      }
    };
    const auto fetch_entries = [&](const uint32_t (&fetched)[kAhead], uint4 (&entries)[kAhead]) {
#pragma unroll
      for (uint32_t i = 0; i < kAhead; ++i) {
        entries[i] = fetched[i] == kNoPlace ? make_uint4(0, 0, 0, 0) : table[fetched[i]];
      }
    };
    uint32_t coming_places[kAhead];
    uint4 coming[kAhead], entries[kAhead];
    const uint32_t batches = (steps + kAhead - 1) / kAhead;
    fetch_places(batches - 1, coming_places);
    fetch_entries(coming_places, coming);
    fetch_places(batches - 2, coming_places);
    for (uint32_t batch = batches; batch-- > 0;) {
#pragma unroll
      for (uint32_t i = 0; i < kAhead; ++i) entries[i] = coming[i];
      fetch_entries(coming_places, coming);
      fetch_places(batch - 2, coming_places);
#pragma unroll
      for (uint32_t i = kAhead; i-- > 0;) {
        const PushEntry entry = entry_of(entries[i]);
        const bool write = entry.frequency != 0 && must_write(state, entry);
        const uint32_t ballot = __ballot_sync(kAllLanes, write);
        const auto word = static_cast<uint16_t>(state);
        state = push(write ? state >> kWordBits : state, entry);  // first: all that follows can wait
        if (write) *(written - __popc(ballot >> lane)) = word;
        written -= __popc(ballot);
      }
    }
  }
  if (lane < width) encoder.states[group * width + lane] = state;
  if (lane == 0) encoder.words[group] = static_cast<uint32_t>(end - written);
}

// Puts the payload together, unless something is wrong: kParts blocks for each group.
CONDIC_KERNEL rans_pack(const __grid_constant__ condic::RansEncodeTask task) {
  using namespace condic;
  struct PackShared {
    uint32_t before, all;  // words
  };
  CONDIC_SHARED(PackShared, shared);
  RansEncoder& encoder = *task.encoder;
  const uint32_t groups = encoder.error == 0 ? encoder.groups : 0;
  const uint32_t group = blockIdx.x / kParts, part = blockIdx.x % kParts;
  if (group >= groups) {
    if (blockIdx.x == 0 && threadIdx.x == 0) encoder.size = 0;
    return;
  }
  if (threadIdx.x == 0) shared.before = shared.all = 0;
  __syncthreads();
  if (threadIdx.x < groups) {
    atomicAdd(&shared.all, encoder.words[threadIdx.x]);
    if (threadIdx.x < group) atomicAdd(&shared.before, encoder.words[threadIdx.x]);
  }
  __syncthreads();

  uint8_t header[kMaxHeaderBytes];
  Lanes lanes;
  lanes.log2 = encoder.log2_lanes;
  lanes.groups = groups;
  const uint32_t width = lanes.per_group();
  const uint32_t header_size = write_payload_header(lanes, encoder.escapes, header);
  uint8_t* const sizes = task.payload + header_size;
  uint8_t* const bodies = sizes + 4 * (groups - 1);
  uint8_t* const body = bodies + size_t{4} * width * group + size_t{2} * shared.before;
  uint8_t* const escapes = bodies + size_t{4} * lanes.total() + size_t{2} * shared.all;

  if (part == 0 && threadIdx.x < width) {
    store_32(body + 4 * threadIdx.x, encoder.states[group * width + threadIdx.x]);
  }
  const uint32_t count = encoder.words[group];
  const uint16_t* const words = task.words + size_t{encoder.room} * (group + 1) - count;
  for (uint32_t i = part * kThreads + threadIdx.x; i < count; i += kParts * kThreads) {
    store_16(body + 4 * width + size_t{2} * i, words[i]);
  }
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < encoder.escapes; i += groups * kParts * kThreads) {
    store_16(escapes + size_t{2} * i, static_cast<uint16_t>(task.escapes[i]));
  }
  if (blockIdx.x == 0) {
    if (threadIdx.x < header_size) task.payload[threadIdx.x] = header[threadIdx.x];
    if (threadIdx.x + 1 < groups) store_32(sizes + 4 * threadIdx.x, encoder.words[threadIdx.x]);
    if (threadIdx.x == 0) {
      encoder.size = static_cast<uint32_t>(escapes - task.payload) + 2 * encoder.escapes;
    }
  }
}
