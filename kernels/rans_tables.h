// Probability tables of the entropy coder: checked, and laid out for pushing and popping.
//
// Table t has a radius R: it codes the symbols -R..R and, last, an escape symbol, which stands for every other value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "rans.h"

namespace condic {

constexpr int32_t kMaxRadius = 16383;

class Tables {
 public:
  // `cdf` holds, for each of `count` tables, 2 * radius + 3 values that rise strictly from 0 to 2^15. Throws
  // std::invalid_argument where that does not hold.
  Tables(const uint16_t* cdf, size_t cdf_size, const int32_t* radius, size_t count) {
    if (count < 1 || count > kMaxTables) throw std::invalid_argument("the number of tables must be 1 to 256");
    size_t used = 0;
    for (size_t t = 0; t < count; ++t) {
      if (radius[t] < 0 || radius[t] > kMaxRadius) reject(t, "the radius must be 0 to 16383");
      const size_t symbols = 2 * static_cast<size_t>(radius[t]) + 2;
      if (cdf_size - used < symbols + 1) reject(t, "the cdf ends early");
      add(t, cdf + used, symbols, radius[t]);
      used += symbols + 1;
    }
    if (used != cdf_size) throw std::invalid_argument("the cdf has values that belong to no table");
  }

  size_t count() const { return radius_.size(); }

  // Index, for push_entries(), of what codes `symbol` by table `table`: its own entry or the table's escape.
  uint32_t entry_of(uint8_t table, int16_t symbol) const {
    return first_[table] + rank_of(symbol, radius_[table]);
  }
  bool is_escape(uint8_t table, uint32_t entry) const { return entry == first_[table] + 2 * radius_[table] + 1; }

  // What a GPU needs a copy of.
  const std::vector<PushEntry>& push() const { return push_; }
  const std::vector<Interval>& buckets() const { return buckets_; }
  const std::vector<Interval>& intervals() const { return intervals_; }
  const std::vector<uint32_t>& first() const { return first_; }
  const std::vector<uint32_t>& radius() const { return radius_; }

  const PushEntry* push_entries() const { return push_.data(); }
  PopTables pop_tables() const { return {buckets_.data(), intervals_.data(), first_.data()}; }

 private:
  [[noreturn]] static void reject(size_t table, const char* reason) {
    throw std::invalid_argument("table " + std::to_string(table) + ": " + reason);
  }

  void add(size_t table, const uint16_t* cdf, size_t symbols, int32_t radius) {
    if (cdf[0] != 0 || cdf[symbols] != kTotal) reject(table, "the cdf must run from 0 to 32768");
    first_.push_back(static_cast<uint32_t>(intervals_.size()));
    radius_.push_back(static_cast<uint32_t>(radius));
    for (size_t rank = 0; rank < symbols; ++rank) {
      if (cdf[rank + 1] <= cdf[rank]) reject(table, "the cdf must rise strictly");
      const bool escape = rank + 1 == symbols;
      const auto symbol = escape ? kEscape : static_cast<int16_t>(static_cast<int32_t>(rank) - radius);
      intervals_.push_back({cdf[rank], cdf[rank + 1], symbol, static_cast<uint16_t>(rank)});
      push_.push_back(push_entry(cdf[rank], static_cast<uint16_t>(cdf[rank + 1] - cdf[rank])));
    }
    size_t reaching = first_.back();
    for (uint32_t bucket = 0; bucket < 1u << kBucketBits; ++bucket) {
      while (intervals_[reaching].end <= bucket << (kProbabilityBits - kBucketBits)) ++reaching;
      buckets_.push_back(intervals_[reaching]);
    }
  }

  static PushEntry push_entry(uint16_t start, uint16_t frequency) {
    const uint64_t reciprocal = ((uint64_t{1} << kReciprocalBits) + frequency - 1) / frequency;
    // log2 by its chord between powers of two: the same integer on every machine.
    uint32_t exponent = 0;
    while (frequency >> (exponent + 1)) ++exponent;
    const uint32_t fraction = ((frequency - (1u << exponent)) << 8) >> exponent;
    return {reciprocal, frequency, start, static_cast<uint16_t>(((kProbabilityBits - exponent) << 8) - fraction)};
  }

  std::vector<uint32_t> first_;
  std::vector<uint32_t> radius_;
  std::vector<Interval> intervals_;
  std::vector<Interval> buckets_;
  std::vector<PushEntry> push_;
};

}  // namespace condic
