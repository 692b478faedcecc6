#pragma once

#include <filesystem>
#include <memory>

#include "bpe.h"
#include "tokenizer.h"

namespace dq {

/// What a prompt is padded, begun and ended with, where a tokenizer's folder does not say which tokens are special.
struct SpecialIds {
  std::int64_t pad = 0, begin = 0, end = 0;
};

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

/// Reads tokenizer.json, else vocab.json and merges.txt. Throws Error: a file is missing or damaged, or is of another kind.
std::unique_ptr<Tokenizer> read_clip_tokenizer(const std::filesystem::path& folder, const SpecialIds& special);

}  // namespace dq
