// A libcuda.so.1 without a GPU: what condic uses of the driver, through pycuda or directly, on the host's memory.
//
// Everything is done at once, or recorded where a stream is being captured. Kernels are handed to a function that a test
// gives. `stub_live` counts what has been created and not let go. Whatever needs a context fails without one.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace {

enum : int {
  kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kInvalidContext = 201, kNoBinary = 209, kNotFound = 500, kLost = 700
};

using Launch = void (*)(const char* kernel, const void* arguments, size_t size, uint32_t grid, uint32_t block);
using Work = std::function<void()>;

struct Stream {
  std::vector<Work>* recording = nullptr;
  int priority = 0;
};
struct Event {
  double milliseconds = 0;
  Stream* captured = nullptr;  // that it was recorded on, while that was being captured
};

thread_local std::vector<void*> contexts;
char primary;
Launch launch_kernel = nullptr;
int64_t live = 0;
size_t memory_left = size_t{1} << 40;
std::map<void*, size_t> memory;
std::set<std::string> kernels;
std::map<std::vector<Work>*, std::set<Stream*>> joined;  // streams that are recorded as part of another's capture
double now = 0;
int failing = kSuccess;

int ready() { return failing != kSuccess ? failing : contexts.empty() ? kInvalidContext : kSuccess; }

int queue(void* stream, Work work) {
  if (const int error = ready()) return error;
  auto* const recording = static_cast<Stream*>(stream)->recording;
  if (recording) {
    recording->push_back(std::move(work));
  } else {
    work();
  }
  return kSuccess;
}

}  // namespace

#define API extern "C" __attribute__((visibility("default")))

API void stub_set_launch(Launch launch) { launch_kernel = launch; }
API int64_t stub_live() { return live; }
API void stub_set_memory(size_t size) { memory_left = size; }
API void stub_fail(int error) { failing = error; }

API int cuInit(unsigned) { return kSuccess; }
API int cuDriverGetVersion(int* version) { return *version = 13000, kSuccess; }
API int cuDeviceGetCount(int* count) { return *count = 1, kSuccess; }
API int cuDeviceGet(int* device, int) { return *device = 0, kSuccess; }
API int cuDeviceGetName(char* name, int size, int) { return std::strncpy(name, "stub", static_cast<size_t>(size)), kSuccess; }
API int cuDeviceComputeCapability(int* major, int* minor, int) { return *major = 9, *minor = 0, kSuccess; }
API int cuDeviceTotalMem_v2(size_t* size, int) { return *size = size_t{1} << 40, kSuccess; }
API int cuDeviceGetAttribute(int* value, int attribute, int) { return *value = attribute == 75 ? 9 : 0, kSuccess; }
API int cuDevicePrimaryCtxRetain(void** context, int) { return *context = &primary, ++live, kSuccess; }
API int cuDevicePrimaryCtxRelease_v2(int) { return --live, kSuccess; }
API int cuCtxPushCurrent_v2(void* context) { return contexts.push_back(context), kSuccess; }
API int cuCtxPopCurrent_v2(void** context) {
  if (contexts.empty()) return kInvalidContext;
  if (context) *context = contexts.back();
  contexts.pop_back();
  return kSuccess;
}
API int cuCtxGetDevice(int* device) { return *device = 0, ready(); }
API int cuCtxGetApiVersion(void*, unsigned* version) { return *version = 13000, kSuccess; }
API int cuCtxSynchronize() { return ready(); }
API int cuGetErrorString(int error, const char** text) {
  *text = error == kOutOfMemory ? "out of memory" : error == kLost ? "an illegal memory access was encountered" : "no";
  return kSuccess;
}

API int cuMemGetInfo_v2(size_t* free, size_t* total) {
  *free = memory_left;
  *total = size_t{1} << 40;
  return ready();
}
API int cuMemAlloc_v2(unsigned long long* address, size_t size) {
  if (const int error = ready()) return error;
  if (size > memory_left) return kOutOfMemory;
  void* const found = std::aligned_alloc(256, (size + 255) / 256 * 256);
  std::memset(found, 0xA5, size);
  memory[found] = size;
  memory_left -= size;
  ++live;
  *address = reinterpret_cast<unsigned long long>(found);
  return kSuccess;
}
API int cuMemFree_v2(unsigned long long address) {
  void* const found = reinterpret_cast<void*>(address);
  if (!memory.count(found)) return kInvalidValue;
  memory_left += memory[found];
  memory.erase(found);
  std::free(found);
  --live;
  return ready();
}
API int cuMemHostAlloc(void** address, size_t size, unsigned) {
  *address = std::malloc(size);
  ++live;
  return ready();
}
API int cuMemFreeHost(void* address) { return std::free(address), --live, ready(); }

API int cuStreamCreate(void** stream, unsigned) { return *stream = new Stream, ++live, ready(); }
API int cuStreamDestroy_v2(void* stream) { return delete static_cast<Stream*>(stream), --live, ready(); }
API int cuStreamSynchronize(void* stream) { return static_cast<Stream*>(stream)->recording ? 900 : ready(); }
API int cuEventCreate(void** event, unsigned) { return *event = new Event, ++live, ready(); }
API int cuEventDestroy_v2(void* event) { return delete static_cast<Event*>(event), --live, ready(); }
API int cuEventRecord(void* event, void* stream) {
  auto& recorded = *static_cast<Event*>(event);
  recorded.captured = static_cast<Stream*>(stream)->recording ? static_cast<Stream*>(stream) : nullptr;
  recorded.milliseconds = ++now;
  return ready();
}
// A stream that waits for one that is being captured joins it, until the capture ends.
API int cuStreamWaitEvent(void* stream, void* event, unsigned) {
  auto& waiting = *static_cast<Stream*>(stream);
  Stream* const other = static_cast<Event*>(event)->captured;
  if (other && !waiting.recording) {
    waiting.recording = other->recording;
    joined[waiting.recording].insert(&waiting);
  }
  return ready();
}
API int cuCtxGetStreamPriorityRange(int* least, int* greatest) { return *least = 0, *greatest = -5, ready(); }
API int cuStreamSetAttribute(void* stream, int attribute, const void* value) {
  if (attribute != 8) return kInvalidValue;
  std::memcpy(&static_cast<Stream*>(stream)->priority, value, sizeof(int));
  return ready();
}
API int stub_priority(void* stream) { return static_cast<Stream*>(stream)->priority; }
API int cuEventElapsedTime_v2(float* milliseconds, void* first, void* last) {
  *milliseconds = static_cast<float>(static_cast<Event*>(last)->milliseconds - static_cast<Event*>(first)->milliseconds);
  return ready();
}

API int cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, size_t size, void* stream) {
  return queue(stream, [=] { std::memcpy(reinterpret_cast<void*>(to), from, size); });
}
API int cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, size_t size, void* stream) {
  return queue(stream, [=] { std::memcpy(to, reinterpret_cast<void*>(from), size); });
}
API int cuMemsetD32Async(unsigned long long address, unsigned value, size_t count, void* stream) {
  return queue(stream, [=] {
    for (size_t i = 0; i < count; ++i) reinterpret_cast<unsigned*>(address)[i] = value;
  });
}

API int cuModuleLoadData(void** module, const void* image) {
  if (std::strcmp(static_cast<const char*>(image), "newer") == 0) return kNoBinary;
  return *module = &primary, ++live, ready();
}
API int cuModuleLoadDataEx(void** module, const void* image, unsigned count, const int* options, void** values) {
  // CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES (4) and CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES (6): how much the driver has said
  for (unsigned k = 0; k < count; ++k) {
    if (options[k] == 4 || options[k] == 6) values[k] = nullptr;
  }
  return cuModuleLoadData(module, image);
}
API int cuModuleUnload(void*) { return --live, ready(); }
API int cuModuleGetFunction(void** function, void*, const char* name) {
  *function = const_cast<std::string*>(&*kernels.insert(name).first);
  return ready();
}
API int cuLaunchKernel(void* function, unsigned grid, unsigned, unsigned, unsigned block, unsigned, unsigned, unsigned,
                       void* stream, void**, void** extra) {
  // extra: CU_LAUNCH_PARAM_BUFFER_POINTER (1), buffer, CU_LAUNCH_PARAM_BUFFER_SIZE (2), size, end (0)
  const auto size = *static_cast<size_t*>(extra[3]);
  const auto* const bytes = static_cast<const char*>(extra[1]);
  auto arguments = std::make_shared<std::vector<char>>(bytes, bytes + size);
  return queue(stream, [=] {
    launch_kernel(static_cast<std::string*>(function)->c_str(), arguments->data(), size, grid, block);
  });
}

API int cuStreamBeginCapture_v2(void* stream, int) {
  static_cast<Stream*>(stream)->recording = new std::vector<Work>;
  return ready();
}
API int cuStreamEndCapture(void* stream, void** graph) {
  auto& recording = static_cast<Stream*>(stream)->recording;
  *graph = recording;
  for (Stream* const each : joined[recording]) each->recording = nullptr;
  joined.erase(recording);
  recording = nullptr;
  ++live;
  return ready();
}
API int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags) {
  if (flags != 8) return kInvalidValue;
  *executable = new std::vector<Work>(*static_cast<std::vector<Work>*>(graph));
  ++live;
  return ready();
}
API int cuGraphDestroy(void* graph) { return delete static_cast<std::vector<Work>*>(graph), --live, ready(); }
API int cuGraphExecDestroy(void* graph) { return delete static_cast<std::vector<Work>*>(graph), --live, ready(); }
API int cuGraphLaunch(void* graph, void* stream) {
  const auto* const recorded = static_cast<std::vector<Work>*>(graph);
  return queue(stream, [recorded] {
    for (const Work& work : *recorded) work();
  });
}
