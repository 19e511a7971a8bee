// Entropy decoding: rans_open for a payload, rans_pop for each chunk, rans_close at the end. The payload may be
// anything: a wrong one gives wrong symbols or an error, never an access out of bounds.
#pragma once

#include "chunk.h"
#include "rans_device.h"

namespace condic {

struct RansOpenTask {
  const uint8_t* payload;
  const uint32_t* size;  // of the payload
  RansDecoder* decoder;
};

struct RansPopTask {
  RansTables tables;
  RansDecoder* decoder;
  const ChunkResult* result;  // of the chunk, whose indexes have been found
  const uint8_t* indexes;
  int16_t* symbols;
};

struct RansCloseTask {
  RansDecoder* decoder;
};

struct OpenShared {
  uint32_t error, log2_lanes, groups, escapes, at;
  uint64_t words;                // of all groups
  uint64_t of_group[kMaxGroups];
};

// A group's next words, which a warp holds in registers: lane l has those with numbers l modulo 32, fetched so early
// that no step waits for memory; the bytes that come are not looked at before they move up. Beyond the group's end
// there are zeros.
class WordWindow {
 public:
  CONDIC_DEVICE WordWindow(const uint8_t* words, uint32_t count, uint32_t next)
      : words_(words), count_(count), next_(same_in_warp(next)) {
    const uint32_t number = next - next % kLanes + lane_of_thread();
    fetch(number);
    current_ = coming();
    fetch(number + kLanes);
    following_ = coming();
    fetch(number + 2 * kLanes);
  }

  // For all lanes: the word that is this lane's, if it voted for one.
  CONDIC_DEVICE uint32_t take(uint32_t ballot) {
    const uint32_t at = next_ % kLanes;
    const uint32_t held = lane_of_thread() >= at ? current_ : following_;
    const uint32_t word = __shfl_sync(kAllLanes, held, at + votes_below(ballot));  // modulo kLanes
    const uint32_t taken = __popc(ballot);
    next_ += taken;
    if (at + taken >= kLanes) {
      current_ = following_;
      following_ = coming();
      fetch(next_ - next_ % kLanes + 2 * kLanes + lane_of_thread());
    }
    return word;
  }

  CONDIC_DEVICE uint32_t next() const { return next_; }

 private:
  CONDIC_DEVICE uint32_t coming() const { return low_ | high_ << 8; }
  CONDIC_DEVICE void fetch(uint32_t number) {
    low_ = high_ = 0;
    if (number >= count_) return;
    const uint8_t* const bytes = words_ + size_t{2} * number;
    low_ = bytes[0];
    high_ = bytes[1];
  }

  const uint8_t* words_;
  uint32_t count_, next_;
  uint32_t current_, following_, low_, high_;
};

}  // namespace condic

// Reads a payload's head: groups and states. One block.
CONDIC_KERNEL rans_open(const __grid_constant__ condic::RansOpenTask task) {
  using namespace condic;
  CONDIC_SHARED(OpenShared, shared);
  if (threadIdx.x == 0) {
    const uint32_t size = *task.size;
    PayloadHeader header;
    const bool valid = size == 0 || read_payload_header(task.payload, size, header) == HeaderProblem::kNone;
    shared.error = valid ? 0 : rans_error::kBadHeader;
    shared.log2_lanes = header.lanes.log2;
    shared.groups = valid && size > 0 ? header.lanes.groups : 0;
    shared.escapes = header.escapes;
    shared.at = header.size;
    shared.words = header.words;
  }
  __syncthreads();
  const uint32_t group = threadIdx.x, groups = shared.groups;
  const uint8_t* const sizes = task.payload + shared.at;
  if (group + 1 < groups) shared.of_group[group] = load_32(sizes + 4 * group);
  __syncthreads();
  if (group < groups) {
    uint64_t before = 0;
    for (uint32_t g = 0; g < group; ++g) before += shared.of_group[g];
    const uint64_t words = group + 1 < groups ? shared.of_group[group] : shared.words - before;
    uint32_t error = rans_error::kBadHeader;
    if (before <= shared.words) {  // a group that has too many leaves the next one without
      error = 0;
      const uint32_t width = 1u << shared.log2_lanes;
      uint64_t at = shared.at + 4 * (groups - 1) + 4 * uint64_t{width} * group + 2 * before;
      for (uint32_t lane = 0; lane < width; ++lane, at += 4) {
        const uint32_t state = load_32(task.payload + at);
        if (state < kStateLow) error = rans_error::kBadHeader;
        task.decoder->states[group * width + lane] = state;
      }
      task.decoder->group[group] = {static_cast<uint32_t>(at), static_cast<uint32_t>(words), 0};
    }
    if (error != 0) atomicOr(&shared.error, error);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    RansDecoder& decoder = *task.decoder;
    const bool valid = shared.error == 0;
    decoder.error = shared.error;
    decoder.log2_lanes = shared.log2_lanes;
    decoder.groups = valid ? groups : 0;
    decoder.escapes = valid ? shared.escapes : 0;
    decoder.escapes_at = *task.size - 2 * decoder.escapes;
    decoder.escapes_used = 0;
    decoder.escapes_of_chunk = 0;
    decoder.payload = task.payload;
  }
}

// Decodes a chunk's symbols; in place of those that escaped, kEscape. A step, a symbol for each lane, takes as long as
// what comes from the state and leads to the next one: a look, a ballot, a shuffle. All else is done steps ahead.
CONDIC_KERNEL rans_pop(const __grid_constant__ condic::RansPopTask task) {
  using namespace condic;
  constexpr uint32_t kAhead = 4;  // steps whose tables are fetched at once, before they are needed
  struct PopShared {
    alignas(16) Look looks[kMaxLooks];
  };
  CONDIC_SHARED(PopShared, shared);
  RansDecoder& decoder = *task.decoder;
  const uint32_t size = same_in_warp(task.result->coded);
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    decoder.escapes_used += decoder.escapes_of_chunk;
    decoder.escapes_of_chunk = 0;
    if (size > 0 && decoder.groups == 0) atomicOr(&decoder.error, rans_error::kNoSymbols);
  }
  const uint32_t groups = same_in_warp(decoder.groups);
  if (blockIdx.x >= groups) return;
  for (uint32_t i = threadIdx.x; i < task.tables.look_count / 2; i += kThreads) {
    reinterpret_cast<uint4*>(shared.looks)[i] = reinterpret_cast<const uint4*>(task.tables.looks)[i];
  }
  __syncthreads();
  const uint32_t group = group_of_warp();
  if (group >= groups) return;

  const uint32_t lane = lane_of_thread();
  const uint32_t width = 1u << same_in_warp(decoder.log2_lanes), total = width * groups;
  const RansGroup own = decoder.group[group];
  WordWindow words(decoder.payload + own.first, own.words, own.next);
  uint32_t state = lane < width ? decoder.states[group * width + lane] : kStateLow;

  // A lane without a symbol has no table, which leaves its state as it is.
  constexpr uint32_t kNoIndex = 0xFFFFFFFFu;
  const auto fetch_indexes = [&](uint32_t position, uint32_t (&indexes)[kAhead]) {
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i, position += total) {
      indexes[i] = lane < width && position + lane < size ? task.indexes[position + lane] : kNoIndex;
    }
  };
  const auto fetch_looks = [&](const uint32_t (&indexes)[kAhead], TableLooks (&looks)[kAhead]) {
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i) {
      looks[i] = indexes[i] == kNoIndex ? kNoTable
                                        : task.tables.table_looks[indexes[i] < task.tables.count ? indexes[i] : 0];
    }
  };
  uint32_t after[kAhead];
  TableLooks looks[kAhead], coming[kAhead];
  fetch_indexes(group * width, after);
  fetch_looks(after, coming);
  fetch_indexes(group * width + kAhead * total, after);
  for (uint32_t begin = group * width; begin < size; begin += kAhead * total) {
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i) looks[i] = coming[i];
    fetch_looks(after, coming);
    fetch_indexes(begin + 2 * kAhead * total, after);
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i) {
      const Look* const table = shared.looks + first_look(looks[i]);
      const uint32_t slot = state & (kTotal - 1), quotient = state >> kProbabilityBits;
      const Look look = table[slot >> look_shift(looks[i])];
      const bool next = slot >= look.middle;
      const uint32_t beyond = slot - look.middle;
      const bool missed = beyond + look.before >= uint32_t{look.before} + look.after;
      // Both products, so that neither waits for the comparison.
      const uint32_t of_own = look.before * (quotient + 1) + beyond, of_next = look.after * quotient + beyond;
      uint32_t popped = next ? of_next : of_own;
      int16_t symbol = static_cast<int16_t>(look.symbol + next);
      uint32_t readers = __ballot_sync(kAllLanes, must_read(popped));
      if (__any_sync(kAllLanes, missed)) {  // found out while the ballot is on its way
        if (missed) {
          const Interval found = find_interval(task.tables.pop, table_of(looks[i]), state);
          popped = pop(state, found);
          symbol = found.symbol;
        }
        readers = __ballot_sync(kAllLanes, must_read(popped));
      }
      const uint32_t word = words.take(readers);
      state = must_read(popped) ? append_word(popped, word) : popped;
      const uint32_t position = begin + i * total + lane;
      if (lane < width && position < size) task.symbols[position] = symbol;
    }
  }

  if (lane < width) decoder.states[group * width + lane] = state;
  if (lane == 0) {
    decoder.group[group].next = words.next() < own.words ? words.next() : own.words;
    if (words.next() > own.words) atomicOr(&decoder.error, rans_error::kTooFewWords);
  }
}

// Checks that the payload has been used up and led back to the initial states. One block.
CONDIC_KERNEL rans_close(const __grid_constant__ condic::RansCloseTask task) {
  using namespace condic;
  RansDecoder& decoder = *task.decoder;
  uint32_t error = 0;
  for (uint32_t i = threadIdx.x; i < decoder.groups << decoder.log2_lanes; i += kThreads) {
    if (decoder.states[i] != kStateLow) error |= rans_error::kWrongEndState;
  }
  if (threadIdx.x < decoder.groups && decoder.group[threadIdx.x].next != decoder.group[threadIdx.x].words) {
    error |= rans_error::kWordsLeft;
  }
  if (threadIdx.x == 0 && decoder.escapes_used + decoder.escapes_of_chunk < decoder.escapes) {
    error |= rans_error::kEscapesLeft;
  }
  if (error != 0) atomicOr(&decoder.error, error);
}
