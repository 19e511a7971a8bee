// What the kernels need of the machine they run on: a GPU (nvcc, NVRTC), or the emulator of the tests, which runs the
// same sources on a CPU and defines CONDIC_EMULATOR.
//
// Blocks are one-dimensional and made of whole warps. Every thread of a block reaches every barrier, and every lane of
// a warp every collective: no branch around them depends on a thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "host_device.h"

#if defined(CONDIC_EMULATOR)

#include "cuda_emulator.h"

#else

#define CONDIC_DEVICE __device__ __forceinline__
// A block's shared memory: one struct, whose contents are undefined at first.
#define CONDIC_SHARED(Type, name) __shared__ Type name

namespace condic {

// Single accesses to memory that other blocks use at the same time. They are atomic and order nothing else.
CONDIC_DEVICE uint64_t load_relaxed(const uint64_t* address) {
  unsigned long long value;
  asm volatile("ld.relaxed.gpu.u64 %0, [%1];" : "=l"(value) : "l"(address) : "memory");
  return value;
}
CONDIC_DEVICE void store_relaxed(uint64_t* address, uint64_t value) {
  asm volatile("st.relaxed.gpu.u64 [%0], %1;" ::"l"(address), "l"(static_cast<unsigned long long>(value))
               : "memory");
}
// In a loop that waits for another block.
CONDIC_DEVICE void wait_a_little() { __nanosleep(20); }

// The same value, in a register from here on: a compiler would rather find out again and again what it can ask the
// machine, such as a thread's number or where shared memory begins.
CONDIC_DEVICE uint32_t keep(uint32_t value) {
  asm volatile("" : "+r"(value));
  return value;
}

// Where something lies in shared memory, whose contents do not change any more.
using SharedAddress = uint32_t;
CONDIC_DEVICE SharedAddress shared_address(const void* pointer) {
  return keep(static_cast<uint32_t>(__cvta_generic_to_shared(pointer)));
}
CONDIC_DEVICE uint32_t load_shared_4(SharedAddress address) {
  uint32_t value;
  asm("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(address));
  return value;
}
CONDIC_DEVICE uint64_t load_shared_8(SharedAddress address) {
  unsigned long long value;
  asm("ld.shared.u64 %0, [%1];" : "=l"(value) : "r"(address));
  return value;
}

}  // namespace condic

#endif

// Four blocks fit on a multiprocessor: up to 64 registers a thread, and a chunk at 1080p (405 blocks) runs at once on
// 102 of them.
#define CONDIC_KERNEL extern "C" __global__ void __launch_bounds__(condic::kThreads, 4)
// For a kernel that has few warps, whose steps depend on each other: as many registers as it likes.
#define CONDIC_SERIAL_KERNEL extern "C" __global__ void __launch_bounds__(condic::kThreads, 1)

namespace condic {

constexpr uint32_t kThreads = 256;  // of a block
constexpr uint32_t kLanes = 32;     // of a warp
constexpr uint32_t kWarps = kThreads / kLanes;
constexpr uint32_t kAllLanes = 0xFFFFFFFFu;

CONDIC_DEVICE uint32_t lane_of_thread() { return threadIdx.x % kLanes; }
CONDIC_DEVICE uint32_t warp_of_thread() { return threadIdx.x / kLanes; }

// The number of lanes below this one for which the ballot was cast.
CONDIC_DEVICE uint32_t votes_below(uint32_t ballot) { return __popc(ballot & ((1u << lane_of_thread()) - 1)); }

// A value that all lanes of a warp have, said so that nvcc knows: collectives in what then branches on it need no check
// that all lanes are there.
CONDIC_DEVICE uint32_t same_in_warp(uint32_t value) { return __shfl_sync(kAllLanes, value, 0); }

// Whether a graph gave a number; what is infinite less itself is NaN.
CONDIC_DEVICE bool is_finite(float value) { return value - value == 0.0f; }

// The sum over a warp's lanes, modulo 2^32, for every lane.
CONDIC_DEVICE uint32_t sum_of_warp(uint32_t value) {
  for (uint32_t distance = kLanes / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

}  // namespace condic
