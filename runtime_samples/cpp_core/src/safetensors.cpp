#include "safetensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "error.h"
#include "json.h"
#include "json_writer.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensors are copied as they lie in the file, which is little-endian"
#endif

namespace dq {
namespace {

constexpr std::size_t prefix = 8;
constexpr std::uint64_t max_header = 100'000'000;

std::size_t size_of_dtype(const std::string& dtype) {
  if (dtype == "F32" || dtype == "I32") return 4;
  if (dtype == "I64") return 8;
  throw Error("dtype must be F32, I64 or I32, got " + dtype.substr(0, 20));
}

Shape read_shape(const json::Value& row) {
  Shape shape;
  for (const json::Value& axis : row.list_at("shape")) shape.push_back(axis.integer("shape"));
  return shape;
}

}  // namespace

std::string to_string(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::size_t count_elements(const Shape& shape) {
  std::uint64_t product = 1;
  constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t axis : shape) {
    if (axis < 0) throw Error("a shape must not be negative, got " + std::to_string(axis));
    const auto length = static_cast<std::uint64_t>(axis);
    if (length != 0 && product > most / length) throw Error("a shape is too large: " + to_string(shape));
    product *= length;
  }
  if (product > std::numeric_limits<std::size_t>::max()) throw Error("a shape is too large: " + to_string(shape));
  return static_cast<std::size_t>(product);
}

TensorFile TensorFile::parse(Bytes bytes) {
  TensorFile file;
  file.bytes_ = std::move(bytes);
  const std::size_t size = file.bytes_.size();
  if (size < prefix) throw Error("the file has " + std::to_string(size) + " bytes, at least 8 are needed");
  std::uint64_t length = 0;
  std::memcpy(&length, file.bytes_.data(), prefix);
  if (length > max_header) throw Error("the header has " + std::to_string(length) + " bytes, at most 100 MB are allowed");
  if (length > size - prefix) throw Error("the header reaches beyond the end of the file");
  const std::size_t body = prefix + static_cast<std::size_t>(length), rest = size - body;
  const json::Value header = json::parse(as_text(file.bytes_).substr(prefix, body - prefix));
  for (const json::Member& member : header.object("the header")) {
    if (member.name == "__metadata__") continue;
    Entry entry{member.value.text_at("dtype"), read_shape(member.value), 0, 0};
    const std::size_t element = size_of_dtype(entry.dtype);
    const json::Value::List& offsets = member.value.list_at("data_offsets");
    if (offsets.size() != 2) throw Error("data_offsets must be two numbers, got " + std::to_string(offsets.size()));
    const std::int64_t begin = offsets[0].integer("data_offsets"), end = offsets[1].integer("data_offsets");
    if (begin < 0 || end < begin) throw Error("data_offsets must be 0 or more and in order");
    if (static_cast<std::uint64_t>(end) > rest) throw Error("a tensor reaches beyond the end of the file");
    entry.elements = count_elements(entry.shape);
    const auto bytes_of_it = static_cast<std::size_t>(end - begin);
    if (bytes_of_it % element != 0 || entry.elements != bytes_of_it / element) {
      throw Error("a tensor of shape " + to_string(entry.shape) + " and dtype " + entry.dtype + " cannot have " +
                  std::to_string(bytes_of_it) + " bytes");
    }
    entry.offset = body + static_cast<std::size_t>(begin);
    file.entries_.emplace(member.name, std::move(entry));
  }
  return file;
}

TensorFile TensorFile::read(const std::filesystem::path& path) {
  Bytes bytes = read_file(path);
  try {
    return parse(std::move(bytes));
  } catch (const Error& error) {
    throw Error(path.string() + " is damaged: " + error.what());
  }
}

std::vector<std::string> TensorFile::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

const TensorFile::Entry& TensorFile::find(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) throw Error("there is no tensor " + name);
  return found->second;
}

FloatTensor TensorFile::floats(const std::string& name) const {
  const Entry& entry = find(name);
  if (entry.dtype != "F32") throw Error("tensor " + name + " must be F32, got " + entry.dtype);
  FloatTensor tensor{entry.shape, std::vector<float>(entry.elements)};
  if (entry.elements > 0) std::memcpy(tensor.values.data(), bytes_.data() + entry.offset, entry.elements * sizeof(float));
  return tensor;
}

IntegerTensor TensorFile::integers(const std::string& name) const {
  const Entry& entry = find(name);
  if (entry.dtype != "I64") throw Error("tensor " + name + " must be I64, got " + entry.dtype);
  IntegerTensor tensor{entry.shape, std::vector<std::int64_t>(entry.elements)};
  if (entry.elements > 0) {  // the bytes need not be aligned
    std::memcpy(tensor.values.data(), bytes_.data() + entry.offset, entry.elements * sizeof(std::int64_t));
  }
  return tensor;
}

void check_finite(const FloatTensor& tensor, const std::string& name) {
  const bool finite = std::all_of(tensor.values.begin(), tensor.values.end(), [](float value) { return std::isfinite(value); });
  if (!finite) throw Error(name + " holds NaN or infinity");
}

Bytes safetensors_of(const NamedFloats& tensors) {
  json::Writer header;
  header.begin_object();
  std::size_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    const std::size_t end = offset + tensor->values.size() * sizeof(float);
    header.key(name).begin_object().key("dtype").value("F32").key("shape").begin_list();
    for (const std::int64_t axis : tensor->shape) header.value(axis);
    header.end_list().key("data_offsets").begin_list();
    header.value(static_cast<std::int64_t>(offset)).value(static_cast<std::int64_t>(end)).end_list().end_object();
    offset = end;
  }
  std::string text = header.end_object().text();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // tensors begin at a multiple of 8, as readers that map the file like it
  const std::uint64_t length = text.size();
  Bytes bytes(prefix + text.size() + offset);
  std::memcpy(bytes.data(), &length, prefix);
  std::memcpy(bytes.data() + prefix, text.data(), text.size());
  std::uint8_t* to = bytes.data() + prefix + text.size();
  for (const auto& [name, tensor] : tensors) {
    const std::size_t size = tensor->values.size() * sizeof(float);
    if (size > 0) std::memcpy(to, tensor->values.data(), size);
    to += size;
  }
  return bytes;
}

}  // namespace dq
