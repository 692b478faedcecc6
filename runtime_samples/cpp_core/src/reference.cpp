#include "reference.h"

#include <utility>

#include "error.h"

namespace dq {
namespace {

void check_shape(const std::string& name, const Shape& shape, const Shape& wanted) {
  if (shape != wanted) throw Error(name + " must be " + to_string(wanted) + ", got " + to_string(shape));
}

FloatTensor read_rows(const TensorFile& file, const char* name, std::size_t rows, const Shape& start) {
  FloatTensor tensor = file.floats(name);
  Shape wanted = start;
  wanted.insert(wanted.begin(), static_cast<std::int64_t>(rows));
  check_shape(name, tensor.shape, wanted);
  check_finite(tensor, name);
  return tensor;
}

Conditioning read_conditioning(const TensorFile& file, const std::string& name, const Port& port, std::int64_t seeds) {
  Shape wanted = port.shape;
  wanted[0] = seeds;
  if (port.dtype == "float32") {
    FloatTensor tensor = file.floats(name);
    check_shape(name, tensor.shape, wanted);
    check_finite(tensor, name);
    return {std::move(tensor.values), {}};
  }
  IntegerTensor tensor = file.integers(name);
  check_shape(name, tensor.shape, wanted);
  return {{}, std::move(tensor.values)};
}

Reference read(const TensorFile& file, const Bundle& bundle) {
  Reference reference;
  reference.start = file.floats("start");
  Shape wanted = bundle.sample_shape();
  if (!reference.start.shape.empty()) wanted[0] = reference.start.shape[0];
  check_shape("start", reference.start.shape, wanted);
  check_finite(reference.start, "start");
  if (wanted[0] < 1) throw Error("there are no held-out seeds");
  reference.seeds = static_cast<std::size_t>(wanted[0]);
  reference.elements = bundle.output.elements();
  const std::size_t calls = bundle.table.calls();
  reference.fp32_latents = read_rows(file, "fp32_latents", calls + 1, wanted);
  reference.simulation_latents = read_rows(file, "simulation_latents", calls + 1, wanted);
  if (bundle.table.is_stochastic()) reference.step_noise = read_rows(file, "step_noise", calls, wanted);
  for (const Port& port : bundle.inputs) {
    reference.cond.emplace_back();
    if (port.is_conditioning()) reference.cond.back() = read_conditioning(file, "cond." + port.name, port, wanted[0]);
    if (!bundle.is_guided()) continue;
    reference.uncond.emplace_back();
    if (port.is_conditioning()) reference.uncond.back() = read_conditioning(file, "uncond." + port.name, port, wanted[0]);
  }
  return reference;
}

}  // namespace

Reference Reference::load(const Bundle& bundle) {
  const std::filesystem::path path = bundle.folder / bundle.reference;
  try {
    return read(TensorFile::read(path), bundle);
  } catch (const Error& error) {
    throw Error(path.string() + ": " + error.what() + export_again);
  }
}

}  // namespace dq
