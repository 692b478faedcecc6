#pragma once

#include <memory>

#include "bpe.h"
#include "json.h"
#include "tokenizer.h"

namespace dq {

/// CLIP's: NFC, one space for white space, lower case; words, digits and signs by themselves; then byte pair encoding.
class ClipTokenizer : public Tokenizer {
 public:
  ClipTokenizer(std::vector<AddedToken> added, Bpe bpe) : Tokenizer(std::move(added)), bpe_(std::move(bpe)) {}

  std::string text(const std::vector<std::int64_t>& ids) const override { return bpe_.text(ids); }

 protected:
  unicode::Text normalize(const unicode::Text& text) const override;
  void append(const unicode::Text& text, std::vector<std::int64_t>& ids) const override;

 private:
  Bpe bpe_;
};

/// Of a tokenizer.json. Throws Error: it is damaged, or says other steps than these.
std::unique_ptr<Tokenizer> read_clip_tokenizer(const json::Value& file);

}  // namespace dq
