#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "bundle.h"
#include "ort.h"

namespace dq {

/// One graph, ready to execute. A dtype other than float32 and int64 is named by ONNX Runtime's number.
class OnnxSession {
 public:
  /// Throws Error: it does not load, or has an input or output that is no tensor.
  OnnxSession(OrtEnv& environment, const OrtSessionOptions& options, const std::filesystem::path& graph);

  const std::string& name() const { return name_; }  // of the file, for error texts
  const std::vector<Port>& inputs() const { return inputs_; }
  const std::vector<Port>& outputs() const { return outputs_; }

  /// Throws Error unless `port`, of this graph, has the dtype and shape of `wanted`; `by` says who wants them.
  void expect(const Port& port, const Port& wanted, const std::string& by) const;

  /// `inputs` and `outputs` in this graph's order, each of the dtype and size of its port, which must be float32 or int64. Throws Error.
  void execute(const std::vector<const void*>& inputs, const std::vector<void*>& outputs);

 private:
  std::vector<Port> read_ports(bool of_inputs) const;
  std::size_t count(bool of_inputs) const;
  std::string name_of(bool of_input, std::size_t index) const;
  Port describe(bool of_input, std::size_t index) const;
  ort::Owner<OrtValue> tensor(const Port& port, const void* data) const;

  std::string name_;
  ort::Owner<OrtMemoryInfo> memory_;
  ort::Owner<OrtSession> session_;
  std::vector<Port> inputs_, outputs_;
};

}  // namespace dq
