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

// Looks of one table by their number, as a logarithm; each made when it is first asked for.
class LooksByNumber {
 public:
  LooksByNumber(const Tables& tables, size_t table) : tables_(&tables), table_(table) {}

  const LooksOfTable& operator[](uint32_t log2) {
    LooksOfTable& found = made_[log2];
    if (found.looks.empty()) found = looks_of_table(*tables_, table_, log2);
    return found;
  }

 private:
  const Tables* tables_;
  size_t table_;
  LooksOfTable made_[kProbabilityBits + 1];
};

// The frequency of the commonest symbol of a table.
inline uint32_t highest_frequency(const Tables& tables, size_t table) {
  const auto first = tables.intervals().begin() + tables.first()[table];
  const auto higher = [](const Interval& a, const Interval& b) { return a.end - a.start < b.end - b.start; };
  const Interval highest = *std::max_element(first, first + 2 * tables.radius()[table] + 1, higher);
  return static_cast<uint32_t>(highest.end) - highest.start;
}

// Shares kMaxLooks out, time and again to the table that then leaves out least for each look it gets. It may get up to
// eight times as many at once, since twice as many may be no better. The further a table's symbols spread, the rarer
// they are in photographs; so tables count by the frequency of their commonest symbol.
inline Looks make_looks(const Tables& tables) {
  constexpr uint32_t kLeast = 4;  // as a logarithm; 256 tables have room for that
  constexpr uint32_t kMostDoublings = 3;
  std::vector<uint32_t> log2(tables.count(), kLeast);
  std::vector<uint32_t> weight;
  std::vector<LooksByNumber> choice;
  for (size_t t = 0; t < tables.count(); ++t) {
    weight.push_back(highest_frequency(tables, t));
    choice.emplace_back(tables, t);
  }
  for (size_t used = 2 + (tables.count() << kLeast);;) {
    size_t best = 0;
    uint32_t number = 0;
    double most = 0;
    for (size_t t = 0; t < tables.count(); ++t) {
      const uint32_t now = log2[t], highest = std::min(kProbabilityBits, now + kMostDoublings);
      for (uint32_t more = now + 1; more <= highest; ++more) {
        const size_t added = (size_t{1} << more) - (size_t{1} << now);
        if (used + added > kMaxLooks || choice[t][now].left_out <= choice[t][more].left_out) continue;
        const double gain = static_cast<double>(choice[t][now].left_out - choice[t][more].left_out) *
                            weight[t] / static_cast<double>(added);
        if (gain <= most) continue;
        best = t;
        number = more;
        most = gain;
      }
    }
    if (most == 0) break;
    used += (size_t{1} << number) - (size_t{1} << log2[best]);
    log2[best] = number;
  }
  Looks result;
  result.all = {{0, 0, kTotal, 0}, {}};
  for (size_t t = 0; t < tables.count(); ++t) {
    result.of_table.push_back(table_looks(static_cast<uint32_t>(result.all.size()), kProbabilityBits - log2[t],
                                          static_cast<uint32_t>(t)));
    const std::vector<Look>& looks = choice[t][log2[t]].looks;
    result.all.insert(result.all.end(), looks.begin(), looks.end());
  }
  return result;
}

}  // namespace condic
