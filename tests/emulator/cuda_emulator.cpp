// The emulator: kernels.cu compiled for a CPU, and what runs a launch of it. `emulate` is its only door.
#include "cuda_emulator.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "kernels.cu"

namespace condic_emulator {
namespace {

constexpr size_t kStackBytes = 64 << 10;
constexpr size_t kSharedBytes = 48 << 10;
constexpr uint32_t kWarp = 32;
constexpr uint32_t kFruitlessSweeps = 100000;  // before waiting counts as waiting for ever

enum class Order : int { kForward, kReverse, kRandom };
enum class State { kReady, kWaiting, kDone };

struct Warp {
  const char* kind = nullptr;  // of the collective that lanes are in
  uint32_t arrived = 0;
  uint32_t generation = 0;
  uint64_t given[kWarp];
  uint64_t results[2][kWarp];  // by generation: a lane may still read the last ones
};

struct Fiber;

struct Block {
  explicit Block(uint32_t threads) : warps(threads / kWarp), shared(kSharedBytes, 0xA5) {}

  std::vector<Warp> warps;
  std::vector<uint8_t> shared;  // starts as garbage, as on a GPU
  std::vector<Fiber*> fibers;
  uint32_t at_barrier = 0;
  uint32_t running = 0;
};

struct Fiber {
  Place place;
  Block* block = nullptr;
  State state = State::kDone;
  bool started = false;
  jmp_buf context;
  ucontext_t first;
  void* stack = nullptr;
};

using Kernel = void (*)(const void* task);

struct Machine {
  std::vector<std::unique_ptr<Fiber>> fibers;
  Fiber* current = nullptr;
  jmp_buf scheduler;
  ucontext_t scheduler_context;
  Kernel kernel = nullptr;
  const void* task = nullptr;
  Order order = Order::kForward;
  std::mt19937_64 random;
  bool progress = false;
  std::string error;
};
Machine machine;
std::mutex one_launch_at_a_time;
void* volatile fault_address = nullptr;
sigjmp_buf fault;

void switch_to_scheduler() {
  if (_setjmp(machine.current->context) == 0) _longjmp(machine.scheduler, 1);
}

[[noreturn]] void give_up(std::string error) {
  machine.error = std::move(error);
  _longjmp(machine.scheduler, 2);
}

void fiber_main() {
  machine.kernel(machine.task);
  machine.current->state = State::kDone;
  _longjmp(machine.scheduler, 1);
}

void run(Fiber* fiber) {
  machine.current = fiber;
  const int returned = _setjmp(machine.scheduler);
  if (returned == 0) {
    if (fiber->started) _longjmp(fiber->context, 1);
    fiber->started = true;
    setcontext(&fiber->first);
  }
  if (returned == 2) throw std::runtime_error(machine.error);
}

// Fiber number `slot`, as thread `thread` of a block.
void begin(size_t slot, Block* block, const Place& place) {
  while (machine.fibers.size() <= slot) {
    machine.fibers.push_back(std::make_unique<Fiber>());
    machine.fibers.back()->stack =
        mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  Fiber& fiber = *machine.fibers[slot];
  fiber.place = place;
  fiber.block = block;
  block->fibers.push_back(&fiber);
  fiber.state = State::kReady;
  fiber.started = false;
  getcontext(&fiber.first);
  fiber.first.uc_stack.ss_sp = fiber.stack;
  fiber.first.uc_stack.ss_size = kStackBytes;
  fiber.first.uc_link = nullptr;
  makecontext(&fiber.first, fiber_main, 0);
}

void wake(Block* block, size_t first, size_t count) {
  for (size_t thread = first; thread < first + count; ++thread) {
    Fiber& fiber = *block->fibers[thread];
    if (fiber.state == State::kWaiting) fiber.state = State::kReady;
  }
}

struct Launch {
  uint32_t grid, threads, resident;
};

// Runs blocks in the order given, `resident` of them at a time, until all are done.
void run_blocks(const Launch& launch) {
  std::vector<uint32_t> blocks(launch.grid);
  for (uint32_t i = 0; i < launch.grid; ++i) {
    blocks[i] = machine.order == Order::kReverse ? launch.grid - 1 - i : i;
  }
  if (machine.order == Order::kRandom) std::shuffle(blocks.begin(), blocks.end(), machine.random);
  const uint32_t resident = std::min(launch.resident, launch.grid);
  std::vector<std::unique_ptr<Block>> places(resident);
  std::vector<size_t> sequence(size_t{resident} * launch.threads);
  for (size_t i = 0; i < sequence.size(); ++i) {
    sequence[i] = machine.order == Order::kReverse ? sequence.size() - 1 - i : i;
  }
  for (auto& fiber : machine.fibers) fiber->state = State::kDone;

  uint32_t next = 0, fruitless = 0;
  for (;;) {
    for (uint32_t p = 0; p < resident && next < launch.grid; ++p) {
      if (places[p] && places[p]->running > 0) continue;
      places[p] = std::make_unique<Block>(launch.threads);
      places[p]->running = launch.threads;
      for (uint32_t t = 0; t < launch.threads; ++t) {
        begin(size_t{p} * launch.threads + t, places[p].get(),
              {{t, 0, 0}, {blocks[next], 0, 0}, {launch.threads, 1, 1}, {launch.grid, 1, 1}});
      }
      ++next;
    }
    if (machine.order == Order::kRandom) std::shuffle(sequence.begin(), sequence.end(), machine.random);
    bool ran = false, alive = false;
    machine.progress = false;
    for (const size_t slot : sequence) {
      Fiber* const fiber = machine.fibers[slot].get();
      if (fiber->state == State::kReady) {
        run(fiber);
        ran = true;
        if (fiber->state == State::kDone) {
          --fiber->block->running;
          machine.progress = true;
        }
      }
      alive |= fiber->state != State::kDone;
    }
    if (!alive && next == launch.grid) return;
    if (alive && !ran) throw std::runtime_error("deadlock: threads wait where others never come");
    fruitless = machine.progress ? 0 : fruitless + 1;
    if (fruitless > kFruitlessSweeps) throw std::runtime_error("threads wait for memory that nobody writes");
  }
}

void on_fault(int, siginfo_t* information, void*) {
  fault_address = information->si_addr;
  siglongjmp(fault, 1);
}

// Turns an access to memory that is not there, as a GPU does, into an error of the launch.
class FaultHandler {
 public:
  FaultHandler() : stack_(64 << 10) {
    stack_t alternate{};
    alternate.ss_sp = stack_.data();
    alternate.ss_size = stack_.size();
    sigaltstack(&alternate, &old_stack_);
    struct sigaction action{};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &old_segv_);
    sigaction(SIGBUS, &action, &old_bus_);
  }
  ~FaultHandler() {
    sigaction(SIGSEGV, &old_segv_, nullptr);
    sigaction(SIGBUS, &old_bus_, nullptr);
    sigaltstack(&old_stack_, nullptr);
  }

 private:
  std::vector<uint8_t> stack_;
  stack_t old_stack_;
  struct sigaction old_segv_, old_bus_;
};

template <class Task, void (*kernel)(Task)>
void call(const void* task) {
  kernel(*static_cast<const Task*>(task));
}

struct Entry {
  const char* name;
  Kernel kernel;
  size_t task_bytes;
};

#define CONDIC_ENTRY(kernel, Task) {#kernel, call<const condic::Task, kernel>, sizeof(condic::Task)}
const Entry kEntries[] = {
    CONDIC_ENTRY(pixels_to_tensor, PixelTask), CONDIC_ENTRY(tensor_to_pixels, PixelTask),
    CONDIC_ENTRY(encode_chunk, ChunkTask),     CONDIC_ENTRY(chunk_indexes, ChunkTask),
    CONDIC_ENTRY(decode_chunk, ChunkTask),     CONDIC_ENTRY(rans_open, RansOpenTask),
    CONDIC_ENTRY(rans_pop, RansPopTask),       CONDIC_ENTRY(rans_close, RansCloseTask),
    CONDIC_ENTRY(rans_resolve, RansEncodeTask), CONDIC_ENTRY(rans_push, RansEncodeTask),
    CONDIC_ENTRY(rans_pack, RansEncodeTask),
};

const Entry& entry_of(std::string_view name) {
  for (const Entry& entry : kEntries) {
    if (name == entry.name) return entry;
  }
  throw std::runtime_error("no kernel " + std::string(name));
}

}  // namespace

const Place& here() { return machine.current->place; }

void* shared_memory(size_t bytes) {
  if (bytes > kSharedBytes) give_up("more than 48 KiB of shared memory");
  return machine.current->block->shared.data();
}

void barrier() {
  Fiber* const self = machine.current;
  machine.progress = true;
  if (++self->block->at_barrier == self->block->fibers.size()) {
    self->block->at_barrier = 0;
    wake(self->block, 0, self->block->fibers.size());
  } else {
    self->state = State::kWaiting;
  }
  switch_to_scheduler();
}

const uint64_t* exchange(const char* kind, uint32_t lanes, uint64_t value) {
  Fiber* const self = machine.current;
  machine.progress = true;
  const uint32_t thread = self->place.thread.x;
  Warp& warp = self->block->warps[thread / kWarp];
  if (lanes != 0xFFFFFFFFu) give_up(std::string(kind) + " of a part of a warp");
  if (warp.arrived == 0) warp.kind = kind;
  if (std::strcmp(warp.kind, kind) != 0) give_up(std::string("lanes of a warp meet in ") + kind + " and " + warp.kind);
  warp.given[thread % kWarp] = value;
  const uint32_t generation = warp.generation;
  if (++warp.arrived == kWarp) {
    std::memcpy(warp.results[generation % 2], warp.given, sizeof warp.given);
    warp.arrived = 0;
    ++warp.generation;
    wake(self->block, thread / kWarp * kWarp, kWarp);
  } else {
    self->state = State::kWaiting;
  }
  switch_to_scheduler();
  return warp.results[generation % 2];
}

void let_others_run() { switch_to_scheduler(); }

void perhaps_let_others_run() {
  if (machine.order == Order::kRandom && machine.random() % 4 == 0) switch_to_scheduler();
}

}  // namespace condic_emulator

// Runs a kernel to its end. Returns 0, or 1 and a message. `order`: 0 forward, 1 reverse, 2 random.
extern "C" int emulate(const char* kernel, const void* task, size_t task_bytes, uint32_t grid, uint32_t threads,
                       uint32_t resident, int order, uint64_t seed, char* message, size_t message_bytes) {
  using namespace condic_emulator;
  const std::lock_guard<std::mutex> lock(one_launch_at_a_time);
  const FaultHandler handler;
  try {
    const Entry& entry = entry_of(kernel);
    if (task_bytes != entry.task_bytes) {
      throw std::runtime_error("the task has " + std::to_string(task_bytes) + " bytes, not " +
                               std::to_string(entry.task_bytes));
    }
    if (grid == 0 || threads != condic::kThreads) throw std::runtime_error("a launch of another shape");
    machine.kernel = entry.kernel;
    machine.task = task;
    machine.order = static_cast<Order>(order);
    machine.random.seed(seed);
    if (sigsetjmp(fault, 1) != 0) {
      char text[80];
      std::snprintf(text, sizeof text, "access to %p, which is not the launch's memory", fault_address);
      throw std::runtime_error(text);
    }
    run_blocks({grid, threads, resident});
    return 0;
  } catch (const std::exception& error) {
    std::snprintf(message, message_bytes, "%s: %s", kernel, error.what());
    return 1;
  }
}
