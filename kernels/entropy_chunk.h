// The entropy-parameter step over the chunks of a latent, on the host. entropy_step.h says what it does to an element.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "entropy_step.h"

namespace condic {

// The number of elements of a chunk. Throws std::invalid_argument for a box that leaves the latent, and for more
// elements than the latent has.
inline size_t check_boxes(const Shape& shape, const Box* boxes, size_t count) {
  const auto inside = [](int32_t begin, int32_t end, int32_t step, size_t extent) {
    return begin >= 0 && begin <= end && static_cast<size_t>(end) <= extent && step >= 1;
  };
  size_t total = 0;
  for (size_t i = 0; i < count; ++i) {
    const Box& box = boxes[i];
    if (!inside(box.c0, box.c1, 1, shape.channels) || !inside(box.r0, box.r1, box.rstep, shape.rows) ||
        !inside(box.q0, box.q1, box.qstep, shape.columns)) {
      throw std::invalid_argument("box " + std::to_string(i) + " does not lie within the latent");
    }
    total += box.size();
    if (total > shape.size()) throw std::invalid_argument("the boxes hold more elements than the latent");
  }
  return total;
}

// Elements of one row that are taken together: at offsets first, first + step, ..; `count` of them, at most kMaxRun.
struct Run {
  size_t first, step, count;
};
constexpr size_t kMaxRun = 256;

// Calls visit(run) for the runs of a chunk in order. The boxes have been checked.
template <class Visit>
void for_each_run(const Shape& shape, const Box* boxes, size_t count, Visit&& visit) {
  for (const Box* box = boxes; box != boxes + count; ++box) {
    if (box->size() == 0) continue;
    const size_t step = box->qstep;
    for (int32_t c = box->c0; c < box->c1; ++c) {
      for (int64_t r = box->r0; r < box->r1; r += box->rstep) {
        size_t at = (static_cast<size_t>(c) * shape.rows + r) * shape.columns + box->q0;
        for (size_t left = box->columns(); left > 0;) {
          const size_t size = left < kMaxRun ? left : kMaxRun;
          visit(Run{at, step, size});
          at += size * step;
          left -= size;
        }
      }
    }
  }
}

// A run's values side by side, which lets the compiler use vector instructions whatever the step.
template <class T>
struct RunOf {
  T values[kMaxRun];

  RunOf() = default;
  RunOf(const T* source, const Run& run) {
    for (size_t i = 0; i < run.count; ++i) values[i] = source[run.first + i * run.step];
  }
  void store(T* target, const Run& run) const {
    for (size_t i = 0; i < run.count; ++i) target[run.first + i * run.step] = values[i];
  }
  T& operator[](size_t i) { return values[i]; }
  const T& operator[](size_t i) const { return values[i]; }
};

// A chunk's predicted distribution, one value per element, in order.
struct Distribution {
  const int16_t* mean;   // mu16
  const uint8_t* scale;  // index of the scale
};

// Which of a box's rows or columns (at begin, begin + step, ..; `count` of them) lie in [origin, origin + size): those
// with ordinals [first, last), the first at a distance of `offset` from the origin.
struct Overlap {
  size_t first, last, offset;

  Overlap(size_t begin, size_t step, size_t count, size_t origin, size_t size) {
    first = origin > begin ? std::min(count, (origin - begin + step - 1) / step) : 0;
    const size_t end = origin + size;
    last = std::max(first, std::min(count, end > begin ? (end - begin + step - 1) / step : 0));
    offset = begin + first * step - origin;
  }
};

template <size_t Step>  // 0: any, as given
void store_row(const float* mean, const float* scale, size_t step, size_t count, int32_t scales, int16_t* means,
               uint8_t* indexes) {
  const size_t by = Step > 0 ? Step : step;
  for (size_t j = 0; j < count; ++j) {
    means[j] = static_cast<int16_t>(mean_code(mean[j * by]));
    indexes[j] = static_cast<uint8_t>(scale_index(scale[j * by], scales));
  }
}

// Stores what a graph predicts for the elements of a chunk that lie in a tile. `params` has two planes, mean and scale,
// of the tile's shape; `row` and `column` are the tile's origin in the latent. The boxes have been checked.
inline void store_distribution(const float* params, const Shape& tile, size_t row, size_t column, const Box* boxes,
                               size_t count, int32_t scales, int16_t* mean, uint8_t* scale) {
  size_t first = 0;
  for (const Box* box = boxes; box != boxes + count; first += box->size(), ++box) {
    const Overlap rows(box->r0, box->rstep, box->rows(), row, tile.rows);
    const Overlap columns(box->q0, box->qstep, box->columns(), column, tile.columns);
    if (columns.first == columns.last) continue;
    const size_t step = box->qstep;
    const auto store = step == 1 ? store_row<1> : step == 2 ? store_row<2> : store_row<0>;
    for (size_t c = 0; c < box->channels(); ++c) {
      for (size_t i = rows.first; i < rows.last; ++i) {
        const size_t r = rows.offset + (i - rows.first) * box->rstep;
        const float* const from = params + ((box->c0 + c) * tile.rows + r) * tile.columns + columns.offset;
        const size_t to = first + (c * box->rows() + i) * box->columns() + columns.first;
        store(from, from + tile.size(), step, columns.last - columns.first, scales, mean + to, scale + to);
      }
    }
  }
}

// Stores the decoded values of a run whose first element has the given ordinal; returns their checksum.
inline uint32_t store_decoded(const int32_t* q, const int16_t* mean, const Run& run, uint32_t ordinal,
                              int32_t* latents) {
  RunOf<int32_t> decoded;
  uint32_t checksum = 0;
  for (size_t i = 0; i < run.count; ++i) {
    decoded[i] = decoded_latent(q[i], mean[i]);
    checksum += checksum_term(ordinal + static_cast<uint32_t>(i), decoded[i]);
  }
  decoded.store(latents, run);
  return checksum;
}

struct Quantised {
  size_t coded;  // symbols and indexes written
  uint32_t checksum;
};

// `y` and `latents` have the given shape; `symbols` and `indexes` room for every element of the chunk and one more.
inline Quantised quantise_chunk(const float* y, const Distribution& distribution, const Shape& shape, const Box* boxes,
                                size_t count, int32_t first_coded, int32_t* latents, int16_t* symbols,
                                uint8_t* indexes) {
  Quantised result{0, 0};
  size_t ordinal = 0;
  for_each_run(shape, boxes, count, [&](const Run& run) {
    const int16_t* const mean = distribution.mean + ordinal;
    const uint8_t* const scale = distribution.scale + ordinal;
    const RunOf<float> value(y, run);
    RunOf<int32_t> q;
    for (size_t i = 0; i < run.count; ++i) {
      const int32_t rounded = quantise(value[i], mean[i]);
      q[i] = scale[i] >= first_coded ? rounded : 0;
    }
    for (size_t i = 0; i < run.count; ++i) {
      symbols[result.coded] = static_cast<int16_t>(q[i]);
      indexes[result.coded] = scale[i];
      result.coded += scale[i] >= first_coded;
    }
    result.checksum += store_decoded(q.values, mean, run, static_cast<uint32_t>(ordinal), latents);
    ordinal += run.count;
  });
  return result;
}

// Writes the scale indexes of the coded elements, in order, and returns their number. `indexes` has room for one more
// than `size`.
inline size_t coded_indexes(const uint8_t* scale, size_t size, int32_t first_coded, uint8_t* indexes) {
  size_t coded = 0;
  for (size_t i = 0; i < size; ++i) {
    indexes[coded] = scale[i];
    coded += scale[i] >= first_coded;
  }
  return coded;
}

// Returns the checksum. Throws std::invalid_argument if the chunk does not code exactly `size` symbols.
inline uint32_t scatter_symbols(const int16_t* symbols, size_t size, const Distribution& distribution,
                                const Shape& shape, const Box* boxes, size_t count, int32_t first_coded,
                                int32_t* latents) {
  constexpr int16_t kNone = 0;
  size_t coded = 0;
  size_t ordinal = 0;
  uint32_t checksum = 0;
  for_each_run(shape, boxes, count, [&](const Run& run) {
    const uint8_t* const scale = distribution.scale + ordinal;
    RunOf<int32_t> q;
    for (size_t i = 0; i < run.count; ++i) {
      const bool is_coded = scale[i] >= first_coded;
      q[i] = *(is_coded && coded < size ? symbols + coded : &kNone);
      coded += is_coded;
    }
    checksum += store_decoded(q.values, distribution.mean + ordinal, run, static_cast<uint32_t>(ordinal), latents);
    ordinal += run.count;
  });
  if (coded != size) {
    throw std::invalid_argument("the chunk codes " + std::to_string(coded) + " symbols, not " + std::to_string(size));
  }
  return checksum;
}

// What contexts read of a part of a latent: `part` is its shape, `row` and `column` its origin.
inline void context_inputs(const int32_t* latents, const Shape& shape, const Shape& part, size_t row, size_t column,
                           const ContextOptions& options, float* context) {
  for (size_t c = 0; c < part.channels; ++c) {
    for (size_t r = 0; r < part.rows; ++r, context += part.columns) {
      const int32_t* const from = latents + (c * shape.rows + row + r) * shape.columns + column;
      for (size_t q = 0; q < part.columns; ++q) context[q] = context_input(from[q], options);
    }
  }
}

}  // namespace condic
