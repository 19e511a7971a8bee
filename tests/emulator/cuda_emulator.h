// What the kernels use of CUDA, on a CPU. kernels/cuda/platform.h includes this if CONDIC_EMULATOR is defined.
//
// Each thread of a block is a fiber. It runs on its own until it meets a barrier or a warp's collective, or polls
// memory that other blocks write; then others go on, in an order that the launch chooses. Collectives are those of
// whole warps: every lane must take part, in the same one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#define CONDIC_DEVICE inline
#define CONDIC_SHARED(Type, name) Type& name = *static_cast<Type*>(condic_emulator::shared_memory(sizeof(Type)))
#define __global__
#define __device__
#define __launch_bounds__(threads, blocks)
#define __grid_constant__

struct uint3 {
  uint32_t x, y, z;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

namespace condic_emulator {

struct Place {
  uint3 thread, block, block_size, grid;
};
const Place& here();  // of the fiber that runs

void* shared_memory(size_t bytes);
void barrier();
// Every lane gives a value and gets those of all. `kind` tells collectives apart.
const uint64_t* exchange(const char* kind, uint32_t lanes, uint64_t value);
void let_others_run();       // for a thread that waits for them
void perhaps_let_others_run();  // at accesses that other threads can see

}  // namespace condic_emulator

#define threadIdx (condic_emulator::here().thread)
#define blockIdx (condic_emulator::here().block)
#define blockDim (condic_emulator::here().block_size)
#define gridDim (condic_emulator::here().grid)

inline void __syncthreads() { condic_emulator::barrier(); }
inline void __syncwarp(uint32_t lanes = 0xFFFFFFFFu) { condic_emulator::exchange("__syncwarp", lanes, 0); }

inline uint32_t __ballot_sync(uint32_t lanes, bool vote) {
  const uint64_t* const votes = condic_emulator::exchange("__ballot_sync", lanes, vote);
  uint32_t ballot = 0;
  for (uint32_t lane = 0; lane < 32; ++lane) ballot |= static_cast<uint32_t>(votes[lane]) << lane;
  return ballot;
}
inline bool __any_sync(uint32_t lanes, bool vote) {
  const uint64_t* const votes = condic_emulator::exchange("__any_sync", lanes, vote);
  for (uint32_t lane = 0; lane < 32; ++lane) {
    if (votes[lane] != 0) return true;
  }
  return false;
}
inline uint32_t __shfl_sync(uint32_t lanes, uint32_t value, uint32_t source) {
  return static_cast<uint32_t>(condic_emulator::exchange("__shfl_sync", lanes, value)[source % 32]);
}
inline uint32_t __shfl_xor_sync(uint32_t lanes, uint32_t value, uint32_t mask) {
  const uint32_t lane = threadIdx.x % 32;
  return static_cast<uint32_t>(condic_emulator::exchange("__shfl_xor_sync", lanes, value)[lane ^ mask]);
}
inline uint32_t __shfl_up_sync(uint32_t lanes, uint32_t value, uint32_t distance) {
  const uint32_t lane = threadIdx.x % 32;
  const uint64_t* const values = condic_emulator::exchange("__shfl_up_sync", lanes, value);
  return static_cast<uint32_t>(values[lane < distance ? lane : lane - distance]);
}

inline uint32_t __popc(uint32_t bits) { return static_cast<uint32_t>(__builtin_popcount(bits)); }
inline uint32_t __ffs(uint32_t bits) { return static_cast<uint32_t>(__builtin_ffs(static_cast<int>(bits))); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }

template <class T>
T atomicAdd(T* address, T value) {
  condic_emulator::perhaps_let_others_run();
  const T before = *address;
  *address = before + value;
  return before;
}
template <class T>
T atomicOr(T* address, T value) {
  condic_emulator::perhaps_let_others_run();
  const T before = *address;
  *address = before | value;
  return before;
}

namespace condic {

inline uint64_t load_relaxed(const uint64_t* address) {
  condic_emulator::perhaps_let_others_run();
  return *address;
}
inline void store_relaxed(uint64_t* address, uint64_t value) {
  condic_emulator::perhaps_let_others_run();
  *address = value;
}
inline void wait_a_little() { condic_emulator::let_others_run(); }

inline uint32_t keep(uint32_t value) { return value; }

using SharedAddress = uintptr_t;
inline SharedAddress shared_address(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }
inline uint32_t load_shared_4(SharedAddress address) { return *reinterpret_cast<const uint32_t*>(address); }
inline uint64_t load_shared_8(SharedAddress address) {
  uint64_t value;
  std::memcpy(&value, reinterpret_cast<const void*>(address), sizeof value);
  return value;
}

}  // namespace condic
