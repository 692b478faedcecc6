#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "chips.h"

namespace dq {

/// What executes the bundle.
enum class Unit {
  cpu,       // model/METHOD.onnx by ONNX Runtime's own kernels, quantized and dequantized as written
  emulator,  // model/METHOD.npu.onnx, or METHOD.onnx, by Qualcomm's library on x86-64, which compiles it and emulates the NPU
  npu,       // CHIP/METHOD_ctx.onnx, compiled before, on the NPU of a phone
};

struct QnnOptions {
  Unit unit = Unit::cpu;
  const Chip* chip = nullptr;         // not for the CPU
  std::filesystem::path qnn_library;  // Qualcomm's plugin; its other libraries lie beside it
  std::optional<std::size_t> threads; // of the CPU; none: the runtime's choice
};

/// Takes this program's own options out of the command line. Throws Error: an option has no value, or they do not go together.
QnnOptions take_options(std::vector<std::string>& words);

/// Throws Error: they are given where the NPU, or what emulates it, executes.
void take_threads(std::optional<std::size_t> threads, QnnOptions& options);

/// Of --help.
extern const char* const own_help;

}  // namespace dq
