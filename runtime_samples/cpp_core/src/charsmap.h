#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "unicode.h"

namespace dq {

/// SentencePiece's compiled normalization: a double array of prefixes, and the texts that replace them.
class Charsmap {
 public:
  /// Of the base64 text in a tokenizer.json. Throws Error: it is damaged.
  explicit Charsmap(const std::string& base64);

  /// As the tokenizers package applies it: to each grapheme of less than 6 bytes, else to each of its characters.
  std::string normalize(const unicode::Text& text) const;

 private:
  /// What replaces the text, null if nothing does.
  const char* find(std::string_view text) const;

  std::vector<std::uint32_t> units_;
  std::string replacements_;  // each ends with a NUL
};

}  // namespace dq
