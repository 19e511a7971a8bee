// A chunk of a latent, as launches describe it to the kernels; kernels/device/chunks.py fills this in.
#pragma once

#include "entropy_step.h"
#include "platform.h"

namespace condic {

constexpr uint32_t kMaxBoxes = 64;

// Division of numbers below 2^31: magic is ceil(2^shift / divisor), shift 31 and the bits of divisor - 1.
struct Divisor {
  uint32_t magic, shift;
};
CONDIC_HD uint32_t divide(uint32_t number, Divisor divisor) {
  return static_cast<uint32_t>((uint64_t{number} * divisor.magic) >> divisor.shift);
}

// A box that is not empty. Its first element has the ordinal `begin` in the chunk.
struct BoxOfChunk {
  uint32_t begin, columns, rows;
  Divisor by_columns, by_rows;
  uint32_t first_channel, first_row, row_step, first_column, column_step;
};

// What is predicted for the elements of a latent: a context graph's output, float32 [2 C, H, W], or a row of a table,
// float32 [2 C]. Means, then scale indexes.
struct Prediction {
  const float* means;
  uint32_t scales_at;  // distance of the first scale index from the first mean
  uint32_t channel_stride, row_stride, column_stride;
};

struct ChunkResult {
  uint32_t coded;
  uint32_t checksum;
};

struct ChunkTask {
  Prediction prediction;
  const float* y;       // [C, H, W]
  int32_t* latents;     // [C, H, W], as are these; null where nobody wants them
  float* context;       // what contexts read
  float* hat;           // the decoded latent as a real number
  int16_t* symbols;     // of the coded elements, in order
  uint8_t* indexes;     // their tables
  ChunkResult* result;  // zero before the launch
  struct Scan* scan;    // zero before the launch that counts coded elements
  struct Scan* escape_scan;     // zero before decode_chunk
  struct RansDecoder* decoder;  // null where the host decodes the symbols
  uint32_t* not_finite;         // becomes 1 where y is not; null where nobody asks
  uint32_t size;        // number of elements
  uint32_t rows, columns;  // of the latent
  int32_t scales, first_coded;
  ContextOptions options;
  uint32_t box_count;
  BoxOfChunk boxes[kMaxBoxes];
};

// Where an element is: offset in the latent, and in each half of the prediction.
struct Place {
  uint32_t latent, prediction;
};

CONDIC_DEVICE Place place_of(const ChunkTask& task, uint32_t ordinal) {
  uint32_t b = 0;
  while (b + 1 < task.box_count && ordinal >= task.boxes[b + 1].begin) ++b;
  const BoxOfChunk& box = task.boxes[b];
  const uint32_t in_box = ordinal - box.begin;
  const uint32_t line = divide(in_box, box.by_columns);
  const uint32_t plane = divide(line, box.by_rows);
  const uint32_t channel = box.first_channel + plane;
  const uint32_t row = box.first_row + (line - plane * box.rows) * box.row_step;
  const uint32_t column = box.first_column + (in_box - line * box.columns) * box.column_step;
  return {(channel * task.rows + row) * task.columns + column,
          channel * task.prediction.channel_stride + row * task.prediction.row_stride +
              column * task.prediction.column_stride};
}

}  // namespace condic
