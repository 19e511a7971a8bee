// CONDIC_HD marks a function that runs on the host and, where nvcc or NVRTC compiles it, on the device.
#pragma once

#if defined(__CUDACC__)
#define CONDIC_HD __host__ __device__ inline
#else
#define CONDIC_HD inline
#endif
