#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "pipeline.h"
#include "programs.h"
#include "reference.h"

namespace dq {

/// The named outputs of the text encoders, and the masks of the tokenizers: "text_encoder.hidden", "tokenizer.mask".
using NamedTensors = std::map<std::string, FloatTensor>;

/// (1, T, D), (1, D) or (1, T): the tensors of each row joined along the last axis; of three axes, rows are filled up with zeros to
/// the widest; then the rows joined along axis 1. Throws Error: shapes do not fit.
FloatTensor join(const TensorRows& rows, const NamedTensors& tensors);

/// What every conditioning input of the network is given, in the order of the bundle's inputs and empty for others; from the
/// prompt, and from the constants of that name ("cond" or "uncond"). `zeros`: what a prompt decides is 0. Throws Error.
std::vector<Conditioning> conditioning_of(const Bundle& bundle, const Pipeline& pipeline, const NamedTensors& tensors,
                                          const std::string& constants, bool zeros);

}  // namespace dq
