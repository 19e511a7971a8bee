// Between pixels, uint8 [H, W, 1 or 3], and the tensors that graphs read and write, float32 [3, h, w] around 0..1.
// Bit for bit what runtime/pixels.py and runtime/canvas.py do.
#pragma once

#include "platform.h"

namespace condic {

constexpr int32_t kQuad = 4;  // pixels of a thread, side by side in a row

struct PixelTask {
  uint8_t* pixels;
  float* tensor;
  uint32_t* not_finite;    // becomes 1 where the tensor is not; null where nobody asks
  int32_t height, width;   // of the image
  int32_t rows, columns;   // of the tensor; columns a multiple of 4
  int32_t channels;        // of the image: 1 or 3
};

CONDIC_DEVICE int32_t at_most(int32_t value, int32_t limit) { return value < limit ? value : limit; }

CONDIC_DEVICE float level_of(uint8_t pixel) { return __fmul_rn(static_cast<float>(pixel), 1.0f / 255.0f); }

// Rounded half up and clipped; 0 for NaN.
CONDIC_DEVICE uint32_t pixel_of(float level) {
  float scaled = __fadd_rn(__fmul_rn(level, 255.0f), 0.5f);
  scaled = scaled > 0.0f ? scaled : 0.0f;
  scaled = scaled < 255.0f ? scaled : 255.0f;
  return static_cast<uint32_t>(scaled);
}

// Grey is the mean of the three colours, rounded.
CONDIC_DEVICE uint32_t grey_of(uint32_t red, uint32_t green, uint32_t blue) { return (red + green + blue + 1) / 3; }

// What a thread works on.
struct Quad {
  int32_t row, column;  // in the tensor
  bool inside;

  CONDIC_DEVICE explicit Quad(const PixelTask& task) {
    const uint32_t quads = static_cast<uint32_t>(task.columns) / kQuad;
    const uint32_t number = blockIdx.x * kThreads + threadIdx.x;
    row = static_cast<int32_t>(number / quads);
    column = static_cast<int32_t>(number % quads * kQuad);
    inside = row < task.rows;
  }
};

CONDIC_DEVICE float4* quad_of_tensor(const PixelTask& task, const Quad& quad, int32_t plane) {
  const int64_t line = int64_t{plane} * task.rows + quad.row;
  return reinterpret_cast<float4*>(task.tensor + line * task.columns + quad.column);
}

CONDIC_DEVICE uint8_t* pixel_at(const PixelTask& task, int32_t row, int32_t column) {
  return task.pixels + (int64_t{row} * task.width + column) * task.channels;
}

}  // namespace condic

// Pixels to tensor; beyond the image's right and lower border, the border's pixels again.
CONDIC_KERNEL pixels_to_tensor(const __grid_constant__ condic::PixelTask task) {
  using namespace condic;
  const Quad quad(task);
  if (!quad.inside) return;
  const int32_t row = at_most(quad.row, task.height - 1);
  float levels[3][kQuad];
#pragma unroll
  for (int32_t i = 0; i < kQuad; ++i) {
    const int32_t column = at_most(quad.column + i, task.width - 1);
    const uint8_t* const pixel = pixel_at(task, row, column);
    levels[0][i] = level_of(pixel[0]);
    levels[1][i] = task.channels == 3 ? level_of(pixel[1]) : levels[0][i];
    levels[2][i] = task.channels == 3 ? level_of(pixel[2]) : levels[0][i];
  }
#pragma unroll
  for (int32_t k = 0; k < 3; ++k) {
    *quad_of_tensor(task, quad, k) = make_float4(levels[k][0], levels[k][1], levels[k][2], levels[k][3]);
  }
}

// Tensor to pixels: rounded, clipped, and cropped to the image.
CONDIC_KERNEL tensor_to_pixels(const __grid_constant__ condic::PixelTask task) {
  using namespace condic;
  const Quad quad(task);
  if (!quad.inside || quad.row >= task.height) return;
  uint32_t values[3][kQuad];
  bool finite = true;
#pragma unroll
  for (int32_t k = 0; k < 3; ++k) {
    const float4 levels = *quad_of_tensor(task, quad, k);
    values[k][0] = pixel_of(levels.x);
    values[k][1] = pixel_of(levels.y);
    values[k][2] = pixel_of(levels.z);
    values[k][3] = pixel_of(levels.w);
    finite &= is_finite(levels.x) && is_finite(levels.y) && is_finite(levels.z) && is_finite(levels.w);
  }
  if (!finite && task.not_finite != nullptr) atomicOr(task.not_finite, 1u);
#pragma unroll
  for (int32_t i = 0; i < kQuad; ++i) {
    const int32_t column = quad.column + i;
    if (column >= task.width) return;
    uint8_t* const pixel = pixel_at(task, quad.row, column);
    if (task.channels == 3) {
      for (int32_t k = 0; k < 3; ++k) pixel[k] = static_cast<uint8_t>(values[k][i]);
    } else {
      *pixel = static_cast<uint8_t>(grey_of(values[0][i], values[1][i], values[2][i]));
    }
  }
}
