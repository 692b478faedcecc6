#include "text_conditioning.h"

#include <algorithm>

#include "error.h"

namespace dq {
namespace {

std::size_t axis(const FloatTensor& tensor, std::size_t i) { return static_cast<std::size_t>(tensor.shape[i]); }

void append(FloatTensor& to, const float* values, std::size_t count, std::size_t zeros = 0) {
  to.values.insert(to.values.end(), values, values + count);
  to.values.insert(to.values.end(), zeros, 0.0F);
}

const FloatTensor& find(const NamedTensors& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) throw Error("there is no " + name);
  return found->second;
}

/// Along the last axis.
FloatTensor join_row(const std::vector<std::string>& names, const NamedTensors& tensors) {
  FloatTensor joined = find(tensors, names[0]);
  for (std::size_t n = 1; n < names.size(); ++n) {
    const FloatTensor& next = find(tensors, names[n]);
    if (next.shape.size() != joined.shape.size() || (next.shape.size() == 3 && next.shape[1] != joined.shape[1])) {
      throw Error(names[n] + " " + to_string(next.shape) + " cannot be joined to " + to_string(joined.shape));
    }
    const std::size_t rows = joined.shape.size() == 3 ? axis(joined, 1) : 1;
    const std::size_t left = joined.values.size() / rows, right = next.values.size() / rows;
    FloatTensor both{joined.shape, {}};
    both.shape.back() += next.shape.back();
    for (std::size_t row = 0; row < rows; ++row) {
      append(both, joined.values.data() + row * left, left);
      append(both, next.values.data() + row * right, right);
    }
    joined = std::move(both);
  }
  return joined;
}

Conditioning read_constant(const TensorFile& file, const std::string& name, const Port& port) {
  const bool floats = port.dtype == "float32";
  FloatTensor real = floats ? file.floats(name) : FloatTensor{};
  IntegerTensor whole = floats ? IntegerTensor{} : file.integers(name);
  const Shape& shape = floats ? real.shape : whole.shape;
  if (shape != port.shape) throw Error(name + " must be " + to_string(port.shape) + ", got " + to_string(shape));
  if (floats) check_finite(real, name);
  return {std::move(real.values), std::move(whole.values)};
}

}  // namespace

FloatTensor join(const TensorRows& rows, const NamedTensors& tensors) {
  std::vector<FloatTensor> joined;
  std::int64_t widest = 0;
  for (const auto& names : rows) {
    joined.push_back(join_row(names, tensors));
    if (joined.back().shape.size() != joined[0].shape.size()) throw Error("rows must have as many axes each");
    widest = std::max(widest, joined.back().shape.back());
  }
  FloatTensor result{joined[0].shape, {}};
  result.shape[1] = 0;
  result.shape.back() = result.shape.size() == 2 ? 0 : widest;
  for (const FloatTensor& row : joined) {
    const std::size_t width = axis(row, row.shape.size() - 1), lines = row.values.size() / width;
    for (std::size_t line = 0; line < lines; ++line) {
      append(result, row.values.data() + line * width, width, static_cast<std::size_t>(widest) - width);
    }
    result.shape[1] += row.shape.size() == 2 ? widest : row.shape[1];
  }
  return result;
}

std::vector<Conditioning> conditioning_of(const Bundle& bundle, const Pipeline& pipeline, const NamedTensors& tensors, const Half& half) {
  std::vector<Conditioning> all(bundle.inputs.size());
  std::optional<TensorFile> file;
  if (!pipeline.constants.empty()) file = TensorFile::read(bundle.folder / pipeline.constants);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Port& port = bundle.inputs[i];
    if (!port.is_conditioning()) continue;
    const auto rows = pipeline.conditioning.find(port.name);
    try {
      if (port.name == label_input && half.label) {
        if (port.dtype != "int64" || port.elements() != 1) throw Error("must be one int64, got " + port.dtype + " " + to_string(port.shape));
        all[i].integers = {*half.label};
      } else if (rows == pipeline.conditioning.end()) {
        if (!file) throw Error("there are no constants");
        all[i] = read_constant(*file, std::string(half.constants) + "." + port.name, port);
      } else if (half.zeros) {
        all[i].floats.assign(port.elements(), 0.0F);
      } else {
        FloatTensor tensor = join(rows->second, tensors);
        if (tensor.shape != port.shape) throw Error("the text encoders give " + to_string(tensor.shape) + ", the network takes " + to_string(port.shape));
        all[i].floats = std::move(tensor.values);
      }
    } catch (const Error& error) {
      throw Error((bundle.folder / "pipeline.json").string() + ": " + port.name + ": " + error.what() + export_again);
    }
  }
  return all;
}

}  // namespace dq
