// Python's door to the kernels: declarations, conversions, and checks of what numpy arrays promise. No algorithm here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/tuple.h>

#include <limits>
#include <memory>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "crc32c.h"
#include "entropy_chunk.h"
#include "rans_looks.h"
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

// Of a latent: offsets of its bytes have to fit.
constexpr double kMaxElements = static_cast<double>(std::numeric_limits<size_t>::max() / 64);

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

template <class T>
nb::bytes raw(const std::vector<T>& values) {
  return nb::bytes(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

// numpy's views may begin anywhere, which C++ does not allow.
template <class... Arrays>
void check_aligned(const Arrays&... arrays) {
  const auto is_aligned = [](const auto& array) {
    return reinterpret_cast<uintptr_t>(array.data()) % alignof(std::remove_pointer_t<decltype(array.data())>) == 0;
  };
  if (!(is_aligned(arrays) && ...)) throw nb::type_error("an array of int16, int32 or float32 is not aligned");
}

nb::bytes encode(const Tables& tables, nb::sequence chunks) {
  // The arrays are kept here, alive, while the interpreter's lock is not held.
  std::vector<std::pair<Vector<const int16_t>, Vector<const uint8_t>>> arrays;
  std::vector<Chunk> views;
  for (nb::handle chunk : chunks) {
    auto& [symbols, indexes] = arrays.emplace_back();
    if (!nb::isinstance<nb::tuple>(chunk) || nb::len(chunk) != 2 || !nb::try_cast(chunk[0], symbols, false) ||
        !nb::try_cast(chunk[1], indexes, false))
      throw nb::type_error("a chunk is a pair of contiguous vectors: symbols int16, indexes uint8");
    check_aligned(symbols);
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
  // A copy, since what has been checked must be what is used, whatever another thread does to the array.
  const std::vector<uint8_t> own(indexes.data(), indexes.data() + indexes.size());
  std::unique_ptr<int16_t[]> symbols(new int16_t[own.size()]);
  {
    nb::gil_scoped_release release;
    decoder.decode(own.data(), own.size(), symbols.get());
  }
  return to_numpy(std::move(symbols), own.size());
}

Shape shape_of(size_t channels, size_t rows, size_t columns) {
  const size_t limit = std::numeric_limits<int32_t>::max();
  if (channels > limit || rows > limit || columns > limit)
    throw std::invalid_argument("a latent's sides must be below 2^31");
  // In floating point, where the product cannot wrap.
  if (static_cast<double>(channels) * static_cast<double>(rows) * static_cast<double>(columns) > kMaxElements)
    throw std::invalid_argument("a latent has too many elements");
  return {channels, rows, columns};
}

template <class T>
Shape shape_of(const Volume<T>& volume) {
  return shape_of(volume.shape(0), volume.shape(1), volume.shape(2));
}

void check_scales(int32_t scales) {
  if (scales < 1 || scales > static_cast<int32_t>(kMaxTables)) throw std::invalid_argument("scales must be 1 to 256");
}

void check_inside(size_t origin, size_t size, size_t extent) {
  if (origin > extent || size > extent - origin) throw std::invalid_argument("the part does not lie within the latent");
}

// A copy, as in `decode`.
std::vector<Box> copy_of(const Boxes& boxes) {
  const auto* first = reinterpret_cast<const Box*>(boxes.data());
  return std::vector<Box>(first, first + boxes.shape(0));
}

// The number of elements of a chunk, which has so many means and scales.
template <class Mean, class Scale>
size_t check_chunk(const Shape& shape, const std::vector<Box>& boxes, const Vector<Mean>& mean,
                   const Vector<Scale>& scale) {
  const size_t size = check_boxes(shape, boxes.data(), boxes.size());
  if (mean.size() != size || scale.size() != size)
    throw std::invalid_argument("a chunk needs one mean and one scale for each element");
  return size;
}

void store_distribution(Planes params, size_t row, size_t column, std::tuple<size_t, size_t, size_t> shape,
                        Boxes places, int32_t scales, Vector<int16_t> mean, Vector<uint8_t> scale) {
  check_scales(scales);
  check_aligned(params, places, mean);
  const Shape whole = shape_of(std::get<0>(shape), std::get<1>(shape), std::get<2>(shape));
  const Shape tile = shape_of(params.shape(1), params.shape(2), params.shape(3));
  if (tile.channels != whole.channels) throw std::invalid_argument("params and the latent differ in channels");
  check_inside(row, tile.rows, whole.rows);
  check_inside(column, tile.columns, whole.columns);
  const std::vector<Box> boxes = copy_of(places);
  check_chunk(whole, boxes, mean, scale);
  nb::gil_scoped_release release;
  condic::store_distribution(params.data(), tile, row, column, boxes.data(), boxes.size(), scales, mean.data(),
                             scale.data());
}

nb::tuple quantise_chunk(Volume<const float> y, Vector<const int16_t> mean, Vector<const uint8_t> scale, Boxes places,
                         int32_t first_coded, Volume<int32_t> latents) {
  check_aligned(y, mean, places, latents);
  const Shape shape = shape_of(latents);
  if (y.shape(0) != shape.channels || y.shape(1) != shape.rows || y.shape(2) != shape.columns)
    throw std::invalid_argument("y and latents differ in shape");
  const std::vector<Box> boxes = copy_of(places);
  const size_t size = check_chunk(shape, boxes, mean, scale);
  // One more than is used: what is not coded is written there, then overwritten.
  std::unique_ptr<int16_t[]> symbols(new int16_t[size + 1]);
  std::unique_ptr<uint8_t[]> indexes(new uint8_t[size + 1]);
  Quantised quantised;
  {
    nb::gil_scoped_release release;
    quantised = condic::quantise_chunk(y.data(), {mean.data(), scale.data()}, shape, boxes.data(), boxes.size(),
                                       first_coded, latents.data(), symbols.get(), indexes.get());
  }
  return nb::make_tuple(to_numpy(std::move(symbols), quantised.coded), to_numpy(std::move(indexes), quantised.coded),
                        quantised.checksum);
}

Array<uint8_t> coded_indexes(Vector<const uint8_t> scale, int32_t first_coded) {
  std::unique_ptr<uint8_t[]> indexes(new uint8_t[scale.size() + 1]);
  size_t coded = 0;
  {
    nb::gil_scoped_release release;
    coded = condic::coded_indexes(scale.data(), scale.size(), first_coded, indexes.get());
  }
  return to_numpy(std::move(indexes), coded);
}

uint32_t scatter_symbols(Vector<const int16_t> symbols, Vector<const int16_t> mean, Vector<const uint8_t> scale,
                         Boxes places, int32_t first_coded, Volume<int32_t> latents) {
  check_aligned(symbols, mean, places, latents);
  const Shape shape = shape_of(latents);
  const std::vector<Box> boxes = copy_of(places);
  check_chunk(shape, boxes, mean, scale);
  nb::gil_scoped_release release;
  return condic::scatter_symbols(symbols.data(), symbols.size(), {mean.data(), scale.data()}, shape, boxes.data(),
                                 boxes.size(), first_coded, latents.data());
}

void context_inputs(Volume<const int32_t> latents, size_t row, size_t column, int32_t shift, int32_t limit,
                    Volume<float> context) {
  if (shift < 0 || shift > kMaxContextShift) throw std::invalid_argument("context_shift must be 0 to 20");
  if (limit < 0 || limit > kMaxContextLimit) throw std::invalid_argument("context_limit must be 0 to 2^24");
  check_aligned(latents, context);
  const Shape shape = shape_of(latents), part = shape_of(context);
  if (part.channels != shape.channels) throw std::invalid_argument("context and latents differ in channels");
  check_inside(row, part.rows, shape.rows);
  check_inside(column, part.columns, shape.columns);
  nb::gil_scoped_release release;
  condic::context_inputs(latents.data(), shape, part, row, column, {shift, limit}, context.data());
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
  nanobind::set_leak_warnings(false);  // at exit, of what threads still hold that were not waited for
  m.doc() = "Native kernels; condic.kernels documents them.";
  m.attr("GROUP_BYTES") = condic::kGroupBytes;

  nb::class_<Tables>(m, "Tables")
      .def("__init__",
           [](Tables* self, Vector<const uint16_t> cdf, Vector<const int32_t> radius) {
             new (self) Tables(cdf.data(), cdf.size(), radius.data(), radius.size());
           },
           nb::arg("cdf").noconvert(), nb::arg("radius").noconvert())
      .def("arrays", [](const Tables& self) {
        const condic::Looks looks = condic::make_looks(self);
        return nb::make_tuple(raw(self.push()), raw(looks.all), raw(self.buckets()), raw(self.intervals()),
                              raw(self.first()), raw(self.radius()), raw(looks.of_table));
      });

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
  m.def("store_distribution", &store_distribution, nb::arg("params").noconvert(), "row"_a, "column"_a, "shape"_a,
        nb::arg("boxes").noconvert(), "scales"_a, nb::arg("mean").noconvert(), nb::arg("scale").noconvert());
  m.def("quantise_chunk", &quantise_chunk, nb::arg("y").noconvert(), nb::arg("mean").noconvert(),
        nb::arg("scale").noconvert(), nb::arg("boxes").noconvert(), "first_coded"_a, nb::arg("latents").noconvert());
  m.def("coded_indexes", &coded_indexes, nb::arg("scale").noconvert(), "first_coded"_a);
  m.def("scatter_symbols", &scatter_symbols, nb::arg("symbols").noconvert(), nb::arg("mean").noconvert(),
        nb::arg("scale").noconvert(), nb::arg("boxes").noconvert(), "first_coded"_a, nb::arg("latents").noconvert());
  m.def("context_inputs", &context_inputs, nb::arg("latents").noconvert(), "row"_a, "column"_a, "shift"_a, "limit"_a,
        nb::arg("context").noconvert());
  m.def("crc32c", &crc32c_of, "data"_a, "initial"_a = 0);
}
