// What a GPU pops by, made of the tables when it asks for it: see Look in rans.h. The host does without.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "rans.h"
#include "rans_tables.h"

namespace condic {

struct Looks {
  std::vector<Look> all;  // an even number
  std::vector<TableLooks> of_table;
};

// Those of one table, and how many slots they leave out.
struct LooksOfTable {
  std::vector<Look> looks;
  uint32_t left_out = 0;
};

// The looks of a table that is to have 2^log2 of them.
inline LooksOfTable looks_of_table(const Tables& tables, size_t table, uint32_t log2) {
  const std::vector<Interval>& intervals = tables.intervals();
  const uint32_t size = kTotal >> log2;
  const size_t escape = tables.first()[table] + 2 * size_t{tables.radius()[table]} + 1;
  LooksOfTable result;
  size_t reaching = tables.first()[table];
  for (uint32_t begin = 0; begin < kTotal; begin += size) {
    const uint32_t end = begin + size;
    while (intervals[reaching].end <= begin) ++reaching;
    const auto covers = [&](size_t i) {
      return std::min<uint32_t>(intervals[i].end, end) - std::max<uint32_t>(intervals[i].start, begin);
    };
    Look best = {};
    uint32_t covered = 0;
    for (size_t i = reaching; i < escape && intervals[i].start < end; ++i) {
      const Interval &own = intervals[i], &next = intervals[i + 1];
      const bool two = i + 1 < escape;
      const uint32_t both = covers(i) + (two && next.start < end ? covers(i + 1) : 0);
      if (both <= covered) continue;
      covered = both;
      best = {own.end, static_cast<uint16_t>(own.end - own.start),
              static_cast<uint16_t>(two ? next.end - next.start : 0), own.symbol};
    }
    result.looks.push_back(best);
    result.left_out += size - covered;
  }
  return result;
}

// Shares kMaxLooks out: of the tables that may have twice as many, the one whose looks leave out most gets them.
inline Looks make_looks(const Tables& tables) {
  constexpr uint32_t kLeast = 4;  // as a logarithm; 256 tables have room for that
  std::vector<uint32_t> log2(tables.count(), kLeast);
  std::vector<LooksOfTable> shared;
  for (size_t t = 0; t < tables.count(); ++t) shared.push_back(looks_of_table(tables, t, kLeast));
  for (size_t used = 2 + (tables.count() << kLeast);;) {
    size_t most = tables.count();
    for (size_t t = 0; t < tables.count(); ++t) {
      const bool fits = log2[t] < kProbabilityBits && used + shared[t].looks.size() <= kMaxLooks;
      if (fits && shared[t].left_out > (most < tables.count() ? shared[most].left_out : 0)) most = t;
    }
    if (most == tables.count()) break;
    used += shared[most].looks.size();
    shared[most] = looks_of_table(tables, most, ++log2[most]);
  }
  Looks result;
  result.all = {{0, 0, kTotal, 0}, {}};
  for (size_t t = 0; t < tables.count(); ++t) {
    result.of_table.push_back(table_looks(static_cast<uint32_t>(result.all.size()), kProbabilityBits - log2[t],
                                          static_cast<uint32_t>(t)));
    result.all.insert(result.all.end(), shared[t].looks.begin(), shared[t].looks.end());
  }
  return result;
}

}  // namespace condic
