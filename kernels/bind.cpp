// Python's door to the kernels: declarations, conversions, and checks of what numpy arrays promise. No algorithm here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <limits>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "crc32c.h"
#include "entropy_chunk.h"
#include "rans_stream.h"
#include "rans_tables.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace condic::python {
namespace {

template <class T>
using Vector = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Volume = nb::ndarray<T, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Planes = nb::ndarray<const float, nb::shape<2, -1, -1, -1>, nb::c_contig, nb::device::cpu>;
using Boxes = nb::ndarray<const int32_t, nb::shape<-1, 8>, nb::c_contig, nb::device::cpu>;
template <class T>
using Array = nb::ndarray<nb::numpy, T, nb::ndim<1>>;

static_assert(sizeof(Box) == 8 * sizeof(int32_t), "a row of boxes is read as a Box");

// Hands the first `size` values to numpy, which then owns the buffer.
template <class T>
Array<T> to_numpy(std::unique_ptr<T[]> values, size_t size) {
  nb::capsule owner(values.get(), [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return Array<T>(values.release(), {size}, owner);
}

class BytesView {  // of any object with a contiguous buffer of bytes
 public:
  explicit BytesView(nb::handle object) {
    if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_SIMPLE) != 0) throw nb::python_error();
  }
  ~BytesView() { PyBuffer_Release(&view_); }
  BytesView(const BytesView&) = delete;
  BytesView& operator=(const BytesView&) = delete;

  const uint8_t* data() const { return static_cast<const uint8_t*>(view_.buf); }
  size_t size() const { return static_cast<size_t>(view_.len); }

 private:
  Py_buffer view_;
};

nb::bytes encode(const Tables& tables, nb::sequence chunks) {
  // The arrays are kept here, alive, while the interpreter's lock is not held.
  std::vector<std::pair<Vector<const int16_t>, Vector<const uint8_t>>> arrays;
  std::vector<Chunk> views;
  for (nb::handle chunk : chunks) {
    auto& [symbols, indexes] = arrays.emplace_back();
    if (!nb::isinstance<nb::tuple>(chunk) || nb::len(chunk) != 2 || !nb::try_cast(chunk[0], symbols, false) ||
        !nb::try_cast(chunk[1], indexes, false))
      throw nb::type_error("a chunk is a pair of contiguous vectors: symbols int16, indexes uint8");
    if (symbols.size() != indexes.size()) throw std::invalid_argument("a chunk needs one index for each symbol");
    views.push_back({symbols.data(), indexes.data(), symbols.size()});
  }
  std::vector<uint8_t> payload;
  {
    nb::gil_scoped_release release;
    payload = Encoder(tables, views).payload();
  }
  return nb::bytes(payload.data(), payload.size());
}

Array<int16_t> decode(Decoder& decoder, Vector<const uint8_t> indexes) {
  std::unique_ptr<int16_t[]> symbols(new int16_t[indexes.size()]);
  {
    nb::gil_scoped_release release;
    decoder.decode(indexes.data(), indexes.size(), symbols.get());
  }
  return to_numpy(std::move(symbols), indexes.size());
}

void check(const StepOptions& options) {
  if (options.scales < 1 || options.scales > static_cast<int32_t>(kMaxTables))
    throw std::invalid_argument("scales must be 1 to 256");
  if (options.context_shift < 0 || options.context_shift > kMaxContextShift)
    throw std::invalid_argument("context_shift must be 0 to 20");
  if (options.context_limit < 0 || options.context_limit > kMaxContextLimit)
    throw std::invalid_argument("context_limit must be 0 to 2^24");
}

template <class T>
T* data_of_shape(const Volume<T>& volume, const Shape& shape, const char* reason) {
  if (volume.shape(0) != shape.channels || volume.shape(1) != shape.rows || volume.shape(2) != shape.columns)
    throw std::invalid_argument(reason);
  return volume.data();
}

Latent view(const Planes& params) {
  const Shape shape{params.shape(1), params.shape(2), params.shape(3)};
  const size_t limit = std::numeric_limits<int32_t>::max();
  if (shape.channels > limit || shape.rows > limit || shape.columns > limit)
    throw std::invalid_argument("a latent's sides must be below 2^31");
  return {shape, params.data(), params.data() + shape.size(), nullptr, nullptr};
}

Latent view(const Planes& params, const Volume<int32_t>& latents, const Volume<float>& context) {
  Latent latent = view(params);
  latent.decoded = data_of_shape(latents, latent.shape, "latents and params differ in shape");
  latent.context = data_of_shape(context, latent.shape, "context and params differ in shape");
  return latent;
}

const Box* data_of(const Boxes& boxes) { return reinterpret_cast<const Box*>(boxes.data()); }

nb::tuple quantise_chunk(Volume<const float> y, Planes params, Boxes boxes, int32_t first_coded,
                         Volume<int32_t> latents, Volume<float> context, int32_t context_shift, int32_t context_limit,
                         int32_t scales) {
  const StepOptions options{scales, first_coded, context_shift, context_limit};
  check(options);
  const Latent latent = view(params, latents, context);
  const float* const values = data_of_shape(y, latent.shape, "y and params differ in shape");
  const size_t size = check_boxes(latent.shape, data_of(boxes), boxes.shape(0));
  // One more than is used: what is not coded is written there, then overwritten.
  std::unique_ptr<int16_t[]> symbols(new int16_t[size + 1]);
  std::unique_ptr<uint8_t[]> indexes(new uint8_t[size + 1]);
  Quantised quantised;
  {
    nb::gil_scoped_release release;
    quantised = condic::quantise_chunk(values, latent, data_of(boxes), boxes.shape(0), options, symbols.get(),
                                       indexes.get());
  }
  return nb::make_tuple(to_numpy(std::move(symbols), quantised.coded), to_numpy(std::move(indexes), quantised.coded),
                        quantised.checksum);
}

Array<uint8_t> gather_indexes(Planes params, Boxes boxes, int32_t first_coded, int32_t scales) {
  const StepOptions options{scales, first_coded, 0, 0};
  check(options);
  const Latent latent = view(params);
  const size_t size = check_boxes(latent.shape, data_of(boxes), boxes.shape(0));
  std::unique_ptr<uint8_t[]> indexes(new uint8_t[size + 1]);
  size_t coded = 0;
  {
    nb::gil_scoped_release release;
    coded = condic::gather_indexes(latent, data_of(boxes), boxes.shape(0), options, indexes.get());
  }
  return to_numpy(std::move(indexes), coded);
}

uint32_t scatter_symbols(Vector<const int16_t> symbols, Planes params, Boxes boxes, int32_t first_coded,
                         Volume<int32_t> latents, Volume<float> context, int32_t context_shift, int32_t context_limit,
                         int32_t scales) {
  const StepOptions options{scales, first_coded, context_shift, context_limit};
  check(options);
  const Latent latent = view(params, latents, context);
  check_boxes(latent.shape, data_of(boxes), boxes.shape(0));
  nb::gil_scoped_release release;
  return condic::scatter_symbols(symbols.data(), symbols.size(), latent, data_of(boxes), boxes.shape(0), options);
}

uint32_t crc32c_of(nb::handle data, uint32_t initial) {
  const BytesView bytes(data);
  nb::gil_scoped_release release;
  return crc32c(initial, bytes.data(), bytes.size());
}

}  // namespace
}  // namespace condic::python

NB_MODULE(_native, m) {
  using namespace condic::python;
  using condic::Decoder;
  using condic::Tables;
  m.doc() = "Native kernels; condic.kernels documents them.";

  nb::class_<Tables>(m, "Tables")
      .def("__init__",
           [](Tables* self, Vector<const uint16_t> cdf, Vector<const int32_t> radius) {
             new (self) Tables(cdf.data(), cdf.size(), radius.data(), radius.size());
           },
           nb::arg("cdf").noconvert(), nb::arg("radius").noconvert());

  nb::class_<Decoder>(m, "Decoder")
      .def("__init__",
           [](Decoder* self, const Tables& tables, nb::handle payload) {
             const BytesView bytes(payload);
             new (self) Decoder(tables, bytes.data(), bytes.size());
           },
           "tables"_a, "payload"_a, nb::keep_alive<1, 2>())
      .def("decode", &decode, nb::arg("indexes").noconvert())
      .def("finish", &Decoder::finish, nb::call_guard<nb::gil_scoped_release>());

  m.def("encode", &encode, "tables"_a, "chunks"_a);
  m.def("quantise_chunk", &quantise_chunk, nb::arg("y").noconvert(), nb::arg("params").noconvert(),
        nb::arg("boxes").noconvert(), "first_coded"_a, nb::arg("latents").noconvert(), nb::arg("context").noconvert(),
        "context_shift"_a, "context_limit"_a, "scales"_a);
  m.def("gather_indexes", &gather_indexes, nb::arg("params").noconvert(), nb::arg("boxes").noconvert(),
        "first_coded"_a, "scales"_a);
  m.def("scatter_symbols", &scatter_symbols, nb::arg("symbols").noconvert(), nb::arg("params").noconvert(),
        nb::arg("boxes").noconvert(), "first_coded"_a, nb::arg("latents").noconvert(), nb::arg("context").noconvert(),
        "context_shift"_a, "context_limit"_a, "scales"_a);
  m.def("crc32c", &crc32c_of, "data"_a, "initial"_a = 0);
}
