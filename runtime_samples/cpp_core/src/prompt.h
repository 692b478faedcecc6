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

/// Throws Error: the prompt holds notation that other programs read as instructions, "(word:1.3)", "((word))",
/// "[[word]]", "<token>"; a text encoder would read it as letters. Or it is not UTF-8, or too long to be meant.
void check_prompt(const std::string& option, const std::string& utf8);

/// In lower case, without white space at both ends: what PixArt's pipelines do to a prompt first.
std::string lower_and_stripped(const std::string& text);

/// tokenizer.json in a folder, of that kind: clip or t5. Throws Error: it is missing, damaged, or says other steps than are known.
std::unique_ptr<Tokenizer> read_tokenizer(const std::filesystem::path& folder, const std::string& kind);

}  // namespace dq
