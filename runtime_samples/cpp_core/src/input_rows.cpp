#include "input_rows.h"

#include "error.h"

namespace dq {

bool has_rows(const Port& port) { return port.name == "ranges" || port.name == "step_vectors"; }

std::string rows_file(const Port& port) { return port.name + ".safetensors"; }

std::optional<FloatTensor> read_rows(const Bundle& bundle, const std::string& name, std::size_t count,
                                     const std::string& file) {
  const Port* port = bundle.input(name);
  if (port == nullptr) return std::nullopt;
  FloatTensor rows = TensorFile::read(bundle.folder / (file.empty() ? rows_file(*port) : file)).floats(name);
  const Shape wanted{static_cast<std::int64_t>(count), port->shape[1]};
  if (rows.shape != wanted) throw Error(name + " must be " + to_string(wanted) + ", got " + to_string(rows.shape));
  check_finite(rows, name.c_str());
  return rows;
}

}  // namespace dq
