// The arithmetic of the entropy coder: range asymmetric numeral systems (Duda, arXiv 1311.2540), one symbol at a time.
//
// A state x lies in [2^16, 2^32), is renormalised in 16-bit words and codes with 15-bit probabilities. For a symbol of
// frequency f whose interval starts at c (f > 0, all frequencies of a table summing to M = 2^15):
//
//   push:  if x >= f * 2^17, write the word x mod 2^16 and set x = x div 2^16;  then  x' = M * (x div f) + c + x mod f
//   pop:   s = x mod M lies in [c, c + f);  x' = f * (x div M) + s - c;  if x' < 2^16, read w and set x' = 2^16 x' + w
//
// One pop undoes one push, and neither moves more than one word. Everything here runs on host and device alike; how
// lanes share words and where the bytes go is in rans_stream.h, how the tables are made in rans_tables.h.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace condic {

constexpr uint32_t kProbabilityBits = 15;
constexpr uint32_t kTotal = 1u << kProbabilityBits;
constexpr uint32_t kWordBits = 16;
constexpr uint32_t kMaxTables = 256;
constexpr uint32_t kStateLow = 1u << 16;  // lower limit of a state, and the state that encoding starts from

// A symbol to push. `reciprocal` is ceil(2^47 / frequency). A renormalised state is below 2^17 * frequency, which keeps
// the product with the reciprocal below 2^64 and makes (x * reciprocal) >> 47 equal to x div frequency, always.
struct alignas(16) PushEntry {  // which GPUs load at once
  uint64_t reciprocal;
  uint16_t frequency;
  uint16_t start;
  uint16_t cost;  // about -log2(frequency / 2^15), in 1/256 bit
};
constexpr uint32_t kReciprocalBits = 47;

// Place of a symbol in a table of this radius; beyond it, that of the escape symbol.
CONDIC_HD uint32_t rank_of(int16_t symbol, uint32_t radius) {
  const uint32_t rank = static_cast<uint32_t>(symbol) + radius;
  const uint32_t escape = 2 * radius + 1;
  return rank < escape ? rank : escape;
}

CONDIC_HD bool must_write(uint32_t state, const PushEntry& entry) {
  return state >= static_cast<uint32_t>(entry.frequency) << (2 * kWordBits - kProbabilityBits);
}

CONDIC_HD uint32_t push(uint32_t state, const PushEntry& entry) {
  const auto quotient = static_cast<uint32_t>((state * entry.reciprocal) >> kReciprocalBits);
  return state + entry.start + quotient * (kTotal - entry.frequency);
}

// The interval [start, end) of a symbol, `rank` its place in its table.
struct alignas(8) Interval {
  uint16_t start;
  uint16_t end;
  int16_t symbol;  // kEscape for the escape symbol
  uint16_t rank;
};
constexpr int16_t kEscape = INT16_MIN;

// What popping looks up. `buckets` holds, for each table and each of the 2^kBucketBits equal parts of [0, 2^15), the
// first interval that reaches into the part; `intervals` the intervals of all tables, table t's from `first[t]` on.
struct PopTables {
  const Interval* buckets;
  const Interval* intervals;
  const uint32_t* first;
};
constexpr uint32_t kBucketBits = 8;

CONDIC_HD Interval find_interval(const PopTables& tables, uint32_t table, uint32_t state) {
  const uint32_t slot = state & (kTotal - 1);
  Interval found = tables.buckets[(table << kBucketBits) + (slot >> (kProbabilityBits - kBucketBits))];
  while (slot >= found.end) found = tables.intervals[tables.first[table] + found.rank + 1];
  return found;
}

CONDIC_HD uint32_t pop(uint32_t state, const Interval& found) {
  const uint32_t frequency = static_cast<uint32_t>(found.end) - found.start;
  return frequency * (state >> kProbabilityBits) + (state & (kTotal - 1)) - found.start;
}

// A part of [0, 2^15) as a GPU's shared memory has it: the two intervals side by side that cover most of it,
// [middle - before, middle) of `symbol` and [middle, middle + after) of the next one. What neither has (the escape symbol,
// always) is for find_interval.
struct alignas(8) Look {
  uint16_t middle;
  uint16_t before;
  uint16_t after;
  int16_t symbol;
};
constexpr uint32_t kMaxLooks = 5888;  // of all tables: with two words for each table 48 KiB, a block's share on any GPU

// Where a table's looks are: 16 bits for the number of the first one, 8 for how far to shift a slot to get to the others,
// 8 for the table's number. Look 0 is of no table: it takes all of [0, 2^15) and changes no state.
using TableLooks = uint32_t;
constexpr TableLooks kNoTable = kProbabilityBits << 16;

CONDIC_HD TableLooks table_looks(uint32_t first, uint32_t shift, uint32_t table) {
  return first | shift << 16 | table << 24;
}
CONDIC_HD uint32_t table_of(TableLooks looks) { return looks >> 24; }
CONDIC_HD uint32_t first_look(TableLooks looks) { return looks & 0xFFFF; }
CONDIC_HD uint32_t look_shift(TableLooks looks) { return looks >> 16 & 0xF; }

CONDIC_HD bool must_read(uint32_t state) { return state < kStateLow; }

CONDIC_HD uint32_t append_word(uint32_t state, uint32_t word) { return state << kWordBits | word; }

}  // namespace condic
