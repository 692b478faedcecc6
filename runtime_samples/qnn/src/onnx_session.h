#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "bundle.h"
#include "network.h"
#include "ort.h"

namespace dq {

/// One graph, ready to execute.
class OnnxSession {
 public:
  /// Throws Error: it does not load, or its inputs and output are not the bundle's.
  OnnxSession(OrtEnv& environment, const OrtSessionOptions& options, const std::filesystem::path& graph, const Bundle& bundle);

  /// `inputs` in the bundle's order; fills `output`, of the sample's size. Throws Error.
  void execute(const std::vector<Input>& inputs, std::vector<float>& output);

 private:
  std::size_t count(bool of_inputs) const;
  std::string name_of(bool of_input, std::size_t index) const;
  void check_port(bool of_input, std::size_t index, const Port& port) const;
  ort::Owner<OrtValue> tensor(const Port& port, const void* data, std::size_t bytes) const;

  const Bundle& bundle_;
  std::string name_;  // of the file, for error texts
  ort::Owner<OrtMemoryInfo> memory_;
  ort::Owner<OrtSession> session_;
  std::vector<std::size_t> used_;  // by input of the graph its number in the bundle: a graph may leave some out
};

}  // namespace dq
