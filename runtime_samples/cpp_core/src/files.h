#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace dq {

using Bytes = std::vector<std::uint8_t>;

/// All of a regular file. Throws Error if it cannot be read.
Bytes read_file(const std::filesystem::path& path);

/// Writes under another name in the same folder, then renames: the file is there whole or not at all. Throws Error, which names
/// the option that chose the place.
void write_whole(const std::filesystem::path& path, const void* data, std::size_t size, const std::string& option = "--report");

inline std::string_view as_text(const Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace dq
