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

// A group's next words, which a warp holds in registers: lane l has those with numbers l modulo 32, 64 or more of them,
// fetched so early that no step waits for memory; the bytes that come are not looked at before they move up. Beyond the
// group's end there are zeros.
class WordWindow {
 public:
  static constexpr uint32_t kHeld = 2 * kLanes;  // words, of which some have been taken

  CONDIC_DEVICE WordWindow(const uint8_t* words, uint32_t count, uint32_t next)
      : words_(words),
        count_(count),
        lane_(keep(lane_of_thread())),
        first_(same_in_warp(next) / kLanes * kLanes),
        taken_(same_in_warp(next) % kLanes) {
    fetch(first_);
    current_ = coming();
    fetch(first_ + kLanes);
    following_ = coming();
    fetch(first_ + kHeld);
  }

  // For all lanes: the word that is `rank` after the `words` next ones, if it is held.
  CONDIC_DEVICE uint32_t ahead(uint32_t words, uint32_t rank) const {
    const uint32_t at = taken_ + words;
    const uint32_t shown = lane_ >= at ? current_ : following_;  // known long before the rank is
    return __shfl_sync(kAllLanes, shown, at + rank);  // modulo kLanes
  }
  // Whether so many words are held.
  CONDIC_DEVICE bool holds(uint32_t words) const { return taken_ + words <= kHeld; }

  // Goes on by so many words, all of them held.
  CONDIC_DEVICE void skip(uint32_t words) {
#pragma unroll 1
    for (taken_ += words; taken_ >= kLanes; taken_ -= kLanes) {
      first_ += kLanes;
      current_ = following_;
      following_ = coming();
      fetch(first_ + kHeld);
    }
  }

  CONDIC_DEVICE uint32_t next() const { return first_ + taken_; }

 private:
  CONDIC_DEVICE uint32_t coming() const { return low_ | high_ << 8; }
  CONDIC_DEVICE void fetch(uint32_t first) {
    const uint32_t number = first + lane_;
    low_ = high_ = 0;
    if (number >= count_) return;
    const uint8_t* const bytes = words_ + size_t{2} * number;
    low_ = bytes[0];
    high_ = bytes[1];
  }

  const uint8_t* words_;
  uint32_t count_, lane_;
  uint32_t first_;  // number of the first word held
  uint32_t taken_;  // of those held, less than kLanes
  uint32_t current_, following_, low_, high_;
};

// A look as it is loaded, 8 bytes at once.
CONDIC_DEVICE Look look_of(uint64_t loaded) {
  return {static_cast<uint16_t>(loaded), static_cast<uint16_t>(loaded >> 16), static_cast<uint16_t>(loaded >> 32),
          static_cast<int16_t>(loaded >> 48)};
}

// A symbol popped by a look, unless it is in neither of the look's intervals.
struct Popped {
  uint32_t state;
  int16_t symbol;
  bool missed;
};

CONDIC_DEVICE Popped pop_by_look(SharedAddress looks, TableLooks table, uint32_t state) {
  const uint32_t slot = state & (kTotal - 1), quotient = state >> kProbabilityBits;
  const Look look = look_of(load_shared_8(looks + sizeof(Look) * (first_look(table) + (slot >> look_shift(table)))));
  const uint32_t beyond = slot - look.middle;
  // All ones for the first interval, 0 for the next one: what is chosen by bits need not wait for a comparison.
  const uint32_t own = static_cast<uint32_t>(static_cast<int32_t>(beyond) >> 31);
  const uint32_t frequency = (look.before & own) | (look.after & ~own);
  return {frequency * (quotient - own) + beyond, static_cast<int16_t>(look.symbol + 1 + own),
          beyond + look.before >= uint32_t{look.before} + look.after};
}

// After a pop, for all lanes: those that must read get the next words. Counts the words. `below` are the lanes below.
CONDIC_DEVICE uint32_t renormalised(uint32_t popped, const WordWindow& words, uint32_t below, uint32_t& taken) {
  const uint32_t readers = __ballot_sync(kAllLanes, must_read(popped));
  const uint32_t word = words.ahead(taken, __popc(readers & below));
  taken += __popc(readers);
  return must_read(popped) ? append_word(popped, word) : popped;
}

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
// what comes from the state and leads to the next one: a look, a ballot, a shuffle. All else is done steps ahead, or
// afterwards for several: a jump or a store between two steps would cost a lone warp as much as a look does. So steps are
// taken as if every symbol were in its look and every word were held; the few times that this is wrong, once more. Where
// the last steps gave nothing but zeros, as those of much sky do, they are first taken as if the next ones did so too.
CONDIC_SERIAL_KERNEL rans_pop(const __grid_constant__ condic::RansPopTask task) {
  using namespace condic;
  constexpr uint32_t kAhead = 4;  // steps whose tables are fetched at once, before they are needed
  struct PopShared {
    alignas(16) Look looks[kMaxLooks];
    TableLooks of_table[kMaxTables];
    uint32_t zeros[kMaxTables];  // the interval of symbol 0: start, frequency << 16
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
  for (uint32_t i = threadIdx.x; i < kMaxTables; i += kThreads) {
    const uint32_t table = i < task.tables.count ? i : 0;
    shared.of_table[i] = task.tables.table_looks[table];
    const Interval zero = task.tables.pop.intervals[task.tables.pop.first[table] + task.tables.radius[table]];
    shared.zeros[i] = zero.start | (uint32_t{zero.end} - zero.start) << 16;
  }
  __syncthreads();
  const uint32_t group = group_of_warp();
  if (group >= groups) return;

  const SharedAddress all_looks = shared_address(shared.looks), of_table = shared_address(shared.of_table),
                      zeros = shared_address(shared.zeros);
  const uint32_t lane = lane_of_thread(), below = keep((1u << lane) - 1);
  const uint32_t width = 1u << same_in_warp(decoder.log2_lanes), total = width * groups;
  const RansGroup own = decoder.group[group];
  WordWindow words(decoder.payload + own.first, own.words, own.next);
  uint32_t state = lane < width ? decoder.states[group * width + lane] : kStateLow;

  // A lane without a symbol has no table, which leaves its state as it is. Addresses are counted up: computed from the
  // launch's arguments, they would wait for those to be loaded.
  constexpr uint32_t kNoIndex = 0xFFFFFFFFu;
  uint32_t position = lane < width ? group * width + lane : size, fetched = position;
  const uint8_t* index = task.indexes + position;
  int16_t* symbol = task.symbols + position;
  const auto fetch_indexes = [&](uint32_t (&indexes)[kAhead]) {
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i) {
      indexes[i] = fetched < size ? *index : kNoIndex;
      fetched += total;
      index += total;
    }
  };
  const auto fetch_looks = [&](const uint32_t (&indexes)[kAhead], TableLooks (&looks)[kAhead]) {
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i) {
      looks[i] = indexes[i] == kNoIndex ? kNoTable : load_shared_4(of_table + sizeof(TableLooks) * indexes[i]);
    }
  };
  uint32_t after[kAhead];
  TableLooks looks[kAhead], coming[kAhead];
  fetch_indexes(after);
  fetch_looks(after, coming);
  fetch_indexes(after);
  bool quiet = false;  // the last steps had zeros alone and took no word: the next ones probably do so too
  for (uint32_t begin = group * width; begin < size; begin += kAhead * total) {
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i) looks[i] = coming[i];
    fetch_looks(after, coming);
    fetch_indexes(after);
    int16_t symbols[kAhead];  // stored together: a store amid the steps would hold up the next one
    if (quiet) {  // without a look, a ballot or a shuffle
      uint32_t next = state;
      bool right = true;
#pragma unroll
      for (uint32_t i = 0; i < kAhead; ++i) {
        const uint32_t zero =
            looks[i] == kNoTable ? kTotal << 16 : load_shared_4(zeros + sizeof(uint32_t) * table_of(looks[i]));
        const uint32_t start = zero & 0xFFFF, frequency = zero >> 16;
        right &= (next & (kTotal - 1)) - start < frequency;
        next -= (next >> kProbabilityBits) * (kTotal - frequency) + start;
        right &= !must_read(next);
      }
      if (!__any_sync(kAllLanes, !right)) {
        state = next;
#pragma unroll
        for (uint32_t i = 0; i < kAhead; ++i) {
          if (position < size) *symbol = 0;
          position += total;
          symbol += total;
        }
        continue;
      }
    }
    bool other = false;  // than 0
    const uint32_t before = state;
    uint32_t taken = 0;
    bool missed = false;
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i) {
      const Popped popped = pop_by_look(all_looks, looks[i], state);
      symbols[i] = popped.symbol;
      missed = missed || popped.missed;
      state = renormalised(popped.state, words, below, taken);
    }
    if (__any_sync(kAllLanes, missed) || !words.holds(taken)) {
      state = before;
      taken = 0;
#pragma unroll
      for (uint32_t i = 0; i < kAhead; ++i) {
        Popped popped = pop_by_look(all_looks, looks[i], state);
        if (popped.missed) {
          const Interval found = find_interval(task.tables.pop, table_of(looks[i]), state);
          popped = {pop(state, found), found.symbol, false};
        }
        symbols[i] = popped.symbol;
        uint32_t read = 0;
        state = renormalised(popped.state, words, below, read);
        words.skip(read);
        taken += read;
      }
    } else {
      words.skip(taken);
    }
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i) {
      other |= position < size && symbols[i] != 0;
      if (position < size) *symbol = symbols[i];
      position += total;
      symbol += total;
    }
    quiet = taken == 0 && !__any_sync(kAllLanes, other);
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
