#pragma once

#include <map>
#include <optional>
#include <string>

#include "pipeline.h"
#include "programs.h"
#include "reference.h"

namespace dq {

/// The named outputs of the text encoders, and the masks of the tokenizers: "text_encoder.hidden", "tokenizer.mask".
using NamedTensors = std::map<std::string, FloatTensor>;

/// (1, T, D), (1, D) or (1, T): the tensors of each row joined along the last axis, the rows filled up with zeros to the widest and
/// joined along axis 1. Throws Error: shapes do not fit.
FloatTensor join(const TensorRows& rows, const NamedTensors& tensors);

/// One half of guidance.
struct Half {
  const char* constants = "cond";     // or "uncond": which constants it takes
  bool zeros = false;                 // what a prompt decides is 0
  std::optional<std::int64_t> label;  // of a network that takes a class
};

/// What every conditioning input of the network is given, in the order of the bundle's inputs and empty for others; from what the
/// text encoders gave, the label and the constants. Throws Error.
std::vector<Conditioning> conditioning_of(const Bundle& bundle, const Pipeline& pipeline, const NamedTensors& tensors, const Half& half);

}  // namespace dq
