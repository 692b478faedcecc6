#pragma once

#include <filesystem>
#include <string>

#include "bundle_files.h"

namespace dq {

/// What build_engines.py writes beside an engine: SHA-256 and name of NAME.onnx and of the weights beside it, a line each.
std::string made_of(const std::string& name, const FileHashes& files);

/// Throws Error: the plan is missing, or was made of other files. Such an engine computes another network under the same name.
void expect_own(const std::filesystem::path& plan, const std::string& name, const FileHashes& files);

}  // namespace dq
