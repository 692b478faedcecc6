#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

namespace dq {

/// FIPS 180-4. Feed it bytes, then take the digest once.
class Sha256 {
 public:
  void update(const void* data, std::size_t size);
  /// 64 hexadecimal digits.
  std::string hex_digest();

 private:
  void compress(const std::uint8_t* block);

  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> buffer_{};
  std::size_t buffered_ = 0;
  std::uint64_t total_ = 0;
};

std::string sha256(const void* data, std::size_t size);

/// Throws Error if the file cannot be read.
std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace dq
