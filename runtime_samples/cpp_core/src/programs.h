#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bundle.h"
#include "network.h"
#include "safetensors.h"

namespace dq {

/// An input of a part: row-major, little-endian, in its place until the execution ends.
struct PartInput {
  Port port;
  const void* data = nullptr;
};

/// A text encoder or the decoder, ready to execute.
class Part {
 public:
  virtual ~Part() = default;

  /// The outputs of these names, float32, with their shapes; a program without names has them in this order. Throws Error.
  virtual std::vector<FloatTensor> execute(const std::vector<PartInput>& inputs, const std::vector<std::string>& outputs) = 0;
};

/// Opens the programs of a bundle. What was opened is freed when it is destroyed.
class Programs {
 public:
  virtual ~Programs() = default;

  /// `name` is that of the encoder, or "decoder". Throws Error.
  virtual std::unique_ptr<Part> open(const std::filesystem::path& program, const std::string& name) = 0;
  /// The network itself; the bundle outlives it. Throws Error.
  virtual std::unique_ptr<Network> open_network(const Bundle& bundle) = 0;
};

/// The parts that were opened ahead of their use.
class PartStore {
 public:
  PartStore(std::filesystem::path folder, Programs& programs) : folder_(std::move(folder)), programs_(programs) {}

  void open(const std::string& program, const std::string& name) { parts_[name] = programs_.open(folder_ / program, name); }

  /// The part, opened now if it is not; the caller frees it.
  std::unique_ptr<Part> take(const std::string& program, const std::string& name) {
    std::unique_ptr<Part> part = std::move(parts_[name]);
    return part != nullptr ? std::move(part) : programs_.open(folder_ / program, name);
  }

 private:
  std::filesystem::path folder_;
  Programs& programs_;
  std::map<std::string, std::unique_ptr<Part>> parts_;
};

}  // namespace dq
