#pragma once

#include <cstddef>
#include <filesystem>

namespace dq {

/// A file mapped for reading: weights come from the disk as they are needed, and count once in memory.
class MappedFile {
 public:
  /// Throws Error: it cannot be read, or is empty.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace dq
