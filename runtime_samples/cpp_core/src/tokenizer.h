#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "unicode.h"

namespace dq {

/// A piece of text that is one token wherever it stands, such as <|endoftext|>.
struct AddedToken {
  unicode::Text text;
  std::int64_t id = 0;
  bool normalized = false;  // looked for in the normalized text, not in the text as it was written
};

/// From a text to the ids of its tokens, as the tokenizers package has them, without what begins and ends a prompt.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Throws Error: the text is not UTF-8.
  std::vector<std::int64_t> ids(std::string_view text) const;

  /// About the text that the ids were made of, for messages.
  virtual std::string text(const std::vector<std::int64_t>& ids) const = 0;

 protected:
  explicit Tokenizer(std::vector<AddedToken> added) : added_(std::move(added)) {}

  virtual unicode::Text normalize(const unicode::Text& text) const = 0;
  /// The tokens of a normalized text in which no added token is.
  virtual void append(const unicode::Text& text, std::vector<std::int64_t>& ids) const = 0;

 private:
  std::vector<AddedToken> added_;
};

}  // namespace dq
