#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "bundle.h"
#include "safetensors.h"

namespace dq {

/// Whether the bundle holds a file of rows (1, W) for this input: `ranges` and `step_vectors`.
bool has_rows(const Port& port);

/// That file, relative to the folder.
std::string rows_file(const Port& port);

/// `count` rows of the bundle's input `name`, (count, W), of its file or of another one; none if there is no such input. Throws
/// Error: the file is damaged, of another shape, or holds a number that is not finite.
std::optional<FloatTensor> read_rows(const Bundle& bundle, const std::string& name, std::size_t count, const std::string& file = "");

}  // namespace dq
