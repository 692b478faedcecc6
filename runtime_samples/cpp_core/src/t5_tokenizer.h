#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "charsmap.h"
#include "json.h"
#include "tokenizer.h"
#include "unigram.h"

namespace dq {

/// T5's: SentencePiece's normalization where there is one, words at white space, each marked in front, then the unigram model.
class T5Tokenizer : public Tokenizer {
 public:
  T5Tokenizer(std::vector<AddedToken> added, std::optional<Charsmap> charsmap, Unigram unigram)
      : Tokenizer(std::move(added)), charsmap_(std::move(charsmap)), unigram_(std::move(unigram)) {}

  std::string text(const std::vector<std::int64_t>& ids) const override;

 protected:
  unicode::Text normalize(const unicode::Text& text) const override;
  void append(const unicode::Text& text, std::vector<std::int64_t>& ids) const override;

 private:
  std::optional<Charsmap> charsmap_;
  Unigram unigram_;
};

/// Of a tokenizer.json. Throws Error: it is damaged, or says other steps than these.
std::unique_ptr<Tokenizer> read_t5_tokenizer(const json::Value& file);

}  // namespace dq
