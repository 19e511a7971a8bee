// The entropy-parameter step over the chunks of a latent, on the host. entropy_step.h says what it does to an element.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "entropy_step.h"

namespace condic {

// A latent's arrays. `mean` and `scale` are the two planes of the graph's output.
struct Latent {
  Shape shape;
  const float* mean;
  const float* scale;
  int32_t* decoded;  // in 1/16; null where only indexes are gathered
  float* context;    // the same
};

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

// Stores what coding leaves behind for a run whose first element has the given ordinal; returns its checksum.
inline uint32_t finish_run(const Latent& latent, const Run& run, const RunOf<int32_t>& q, const RunOf<int32_t>& mu16,
                           const StepOptions& options, uint32_t ordinal) {
  RunOf<int32_t> decoded;
  RunOf<float> context;
  uint32_t checksum = 0;
  for (size_t i = 0; i < run.count; ++i) {
    decoded[i] = decoded_latent(q[i], mu16[i]);
    context[i] = context_input(decoded[i], options);
    checksum += checksum_term(ordinal + static_cast<uint32_t>(i), decoded[i]);
  }
  decoded.store(latent.decoded, run);
  context.store(latent.context, run);
  return checksum;
}

struct Quantised {
  size_t coded;  // symbols and indexes written
  uint32_t checksum;
};

// `symbols` and `indexes` have room for every element of the chunk and one more.
inline Quantised quantise_chunk(const float* y, const Latent& latent, const Box* boxes, size_t count,
                                const StepOptions& options, int16_t* symbols, uint8_t* indexes) {
  Quantised result{0, 0};
  uint32_t ordinal = 0;
  for_each_run(latent.shape, boxes, count, [&](const Run& run) {
    const RunOf<float> mean(latent.mean, run), scale(latent.scale, run), value(y, run);
    RunOf<int32_t> mu16, index, q;
    for (size_t i = 0; i < run.count; ++i) {
      mu16[i] = mean_code(mean[i]);
      index[i] = scale_index(scale[i], options.scales);
      const int32_t rounded = quantise(value[i], mu16[i]);
      q[i] = index[i] >= options.first_coded ? rounded : 0;
    }
    for (size_t i = 0; i < run.count; ++i) {
      symbols[result.coded] = static_cast<int16_t>(q[i]);
      indexes[result.coded] = static_cast<uint8_t>(index[i]);
      result.coded += index[i] >= options.first_coded;
    }
    result.checksum += finish_run(latent, run, q, mu16, options, ordinal);
    ordinal += static_cast<uint32_t>(run.count);
  });
  return result;
}

// Writes the scale indexes of the coded elements, in order, and returns their number. `indexes` has room for every
// element of the chunk and one more.
inline size_t gather_indexes(const Latent& latent, const Box* boxes, size_t count, const StepOptions& options,
                             uint8_t* indexes) {
  size_t coded = 0;
  for_each_run(latent.shape, boxes, count, [&](const Run& run) {
    const RunOf<float> scale(latent.scale, run);
    for (size_t i = 0; i < run.count; ++i) {
      const int32_t index = scale_index(scale[i], options.scales);
      indexes[coded] = static_cast<uint8_t>(index);
      coded += index >= options.first_coded;
    }
  });
  return coded;
}

// Returns the checksum. Throws std::invalid_argument if the chunk does not code exactly `size` symbols.
inline uint32_t scatter_symbols(const int16_t* symbols, size_t size, const Latent& latent, const Box* boxes,
                                size_t count, const StepOptions& options) {
  constexpr int16_t kNone = 0;
  size_t coded = 0;
  uint32_t ordinal = 0;
  uint32_t checksum = 0;
  for_each_run(latent.shape, boxes, count, [&](const Run& run) {
    const RunOf<float> mean(latent.mean, run), scale(latent.scale, run);
    RunOf<int32_t> mu16, index, q;
    for (size_t i = 0; i < run.count; ++i) {
      mu16[i] = mean_code(mean[i]);
      index[i] = scale_index(scale[i], options.scales);
    }
    for (size_t i = 0; i < run.count; ++i) {
      const bool is_coded = index[i] >= options.first_coded;
      q[i] = *(is_coded && coded < size ? symbols + coded : &kNone);
      coded += is_coded;
    }
    checksum += finish_run(latent, run, q, mu16, options, ordinal);
    ordinal += static_cast<uint32_t>(run.count);
  });
  if (coded != size) {
    throw std::invalid_argument("the chunk codes " + std::to_string(coded) + " symbols, not " + std::to_string(size));
  }
  return checksum;
}

}  // namespace condic
