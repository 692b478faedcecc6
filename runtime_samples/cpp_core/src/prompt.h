#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pipeline.h"
#include "tokenizer.h"

namespace dq {

/// What a text encoder is given of a prompt.
struct EncodedPrompt {
  std::vector<std::int64_t> ids;  // as many as the tokenizer's length
  std::vector<float> mask;        // 1 up to and with the end token, then 0
  std::string left_out;           // of a prompt that is too long, about what was cut off
};

/// Throws Error: the text is not UTF-8.
EncodedPrompt encode_prompt(const Tokenizer& tokenizer, const TokenizerPart& part, const std::string& text);

/// Throws Error: the prompt weights words, "(word:1.3)" or "[word]", or names a textual inversion, "<token>". Other programs read
/// them as instructions; here they would be tokens as any other, and change the picture in another way than is meant.
void check_prompt(const std::string& option, const std::string& text);

/// The tokenizer in its folder of the bundle. Throws Error.
std::unique_ptr<Tokenizer> read_tokenizer(const std::filesystem::path& bundle, const TokenizerPart& part);

}  // namespace dq
