#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "generate_arguments.h"
#include "pipeline.h"
#include "programs.h"
#include "prompt.h"
#include "reference.h"

namespace dq {

using Warn = std::function<void(const std::string&)>;

/// The two halves of guidance as ids, by tokenizer; `negative` is empty without guidance.
struct PromptTexts {
  std::map<std::string, EncodedPrompt> prompt, negative;
  std::optional<std::int64_t> label;
  bool zeros = false;  // what the negative prompt decides is 0
};

/// Warns of what does not fit. Throws Error: the arguments are not for this model, a tokenizer cannot be read, or a text is not UTF-8.
PromptTexts tokenize(const GenerateArguments& arguments, const Bundle& bundle, const Pipeline& pipeline, const Warn& warn);

/// Executes the text encoders, one after the other: what the network is given, as a Reference of one seed without latents.
/// Throws Error.
Reference encode(const PromptTexts& texts, const Bundle& bundle, const Pipeline& pipeline, PartStore& parts);

}  // namespace dq
