#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace dq {

/// Numbers of one input of the program, in its dtype; they stay where they are until the execution ends.
struct Input {
  const void* data = nullptr;
  std::size_t bytes = 0;
};

/// What a report says of the runtime that executed.
struct Runtime {
  std::string name, version, compute_unit;
  std::vector<std::pair<std::string, std::string>> versions;
  double load_ms = 0;
  bool emulated = false;
};

/// The lowered program, ready to execute.
class Network {
 public:
  virtual ~Network() = default;

  /// One execution of method number `method` with `inputs` in the bundle's order; fills `output`. Throws Error.
  virtual void execute(std::size_t method, const std::vector<Input>& inputs, std::vector<float>& output) = 0;

  /// An execution whose result nobody wants: the first one allocates and packs.
  virtual void warm_up(std::size_t method, const std::vector<Input>& inputs, std::vector<float>& output) {
    execute(method, inputs, output);
  }

  virtual Runtime runtime() const = 0;
};

}  // namespace dq
