#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace dq {

/// Model of the phone, or of the processor and its number of cores.
std::string device_name();

/// `system`, and on Android `android`: release and build.
std::vector<std::pair<std::string, std::string>> system_versions();

/// Largest resident memory of this process so far, in bytes.
std::optional<std::int64_t> peak_memory();

}  // namespace dq
