#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "files.h"

namespace dq {

using Shape = std::vector<std::int64_t>;

/// "(3, 1, 28, 28)", for messages.
std::string to_string(const Shape& shape);

/// Product of the shape. Throws Error if an axis is negative or the product does not fit 63 bits.
std::size_t count_elements(const Shape& shape);

struct FloatTensor {
  Shape shape;
  std::vector<float> values;
};

struct IntegerTensor {
  Shape shape;
  std::vector<std::int64_t> values;
};

/// A safetensors file in memory. What `parse` has let through lies within the bytes, with shape and size agreeing.
class TensorFile {
 public:
  /// Throws Error: not a safetensors file, or it holds another dtype than F32, I64, I32.
  static TensorFile parse(Bytes bytes);
  /// The same with the path in the text of errors.
  static TensorFile read(const std::filesystem::path& path);

  bool has(const std::string& name) const { return entries_.count(name) != 0; }
  std::vector<std::string> names() const;

  /// Throws Error: no such tensor, or not F32.
  FloatTensor floats(const std::string& name) const;
  /// Throws Error: no such tensor, or not I64.
  IntegerTensor integers(const std::string& name) const;

 private:
  struct Entry {
    std::string dtype;
    Shape shape;
    std::size_t elements = 0;
    std::size_t offset = 0;  // from the beginning of the file
  };

  const Entry& find(const std::string& name) const;

  Bytes bytes_;
  std::map<std::string, Entry> entries_;
};

using NamedFloats = std::vector<std::pair<std::string, const FloatTensor*>>;

/// The bytes of a safetensors file with these tensors, in this order.
Bytes safetensors_of(const NamedFloats& tensors);

/// Throws Error: a number is NaN or infinite.
void check_finite(const FloatTensor& tensor, const std::string& name);

}  // namespace dq
