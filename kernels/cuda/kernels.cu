// Everything that runs on a GPU, as one module. nvcc or NVRTC compiles it; so does g++, for the tests' emulator.
#include "chunk_kernels.h"
#include "pixel_kernels.h"
#include "rans_decode_kernels.h"
#include "rans_encode_kernels.h"
