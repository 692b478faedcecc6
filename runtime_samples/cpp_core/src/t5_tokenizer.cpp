#include "t5_tokenizer.h"

#include "error.h"
#include "tokenizer_files.h"

namespace dq {
namespace {

constexpr char32_t mark = 0x2581;  // stands for the space before a word
const std::string mark_text = "\xE2\x96\x81";

std::optional<Charsmap> read_charsmap(const json::Value& normalizer) {
  if (normalizer.is_null()) return {};
  expect_text(normalizer, "type", "Precompiled");
  return Charsmap(normalizer.text_at("precompiled_charsmap"));
}

void check_splits(const json::Value& pre_tokenizer) {
  expect_text(pre_tokenizer, "type", "Sequence");
  const json::Value::List& splits = pre_tokenizer.list_at("pretokenizers");
  if (splits.size() != 2) throw Error("pretokenizers must be 2, got " + std::to_string(splits.size()));
  expect_text(splits[0], "type", "WhitespaceSplit");
  expect_text(splits[1], "type", "Metaspace");
  expect_text(splits[1], "replacement", mark_text);
  expect_text(splits[1], "prepend_scheme", "always");
}

std::vector<UnigramPiece> read_pieces(const json::Value& model) {
  std::vector<UnigramPiece> pieces;
  for (const json::Value& row : model.list_at("vocab")) {
    const json::Value::List& pair = row.list("vocab");
    if (pair.size() != 2) throw Error("a piece must be a text and a score, got " + std::to_string(pair.size()) + " values");
    pieces.push_back({pair[0].text("vocab"), pair[1].number("vocab")});
  }
  return pieces;
}

}  // namespace

unicode::Text T5Tokenizer::normalize(const unicode::Text& text) const {
  return charsmap_ ? unicode::decode(charsmap_->normalize(text)) : text;
}

void T5Tokenizer::append(const unicode::Text& text, std::vector<std::int64_t>& ids) const {
  for (std::size_t at = 0; at < text.size();) {
    if (unicode::is_space(text[at])) {
      ++at;
      continue;
    }
    unicode::Text word;
    if (text[at] != mark) word.push_back(mark);
    for (; at < text.size() && !unicode::is_space(text[at]); ++at) {
      if (text[at] == mark && !word.empty()) {  // a mark in the text begins a word, too
        unigram_.append(unicode::encode(word), ids);
        word.clear();
      }
      word.push_back(text[at]);
    }
    unigram_.append(unicode::encode(word), ids);
  }
}

std::string T5Tokenizer::text(const std::vector<std::int64_t>& ids) const {
  std::string result;
  for (const std::int64_t id : ids) result += unigram_.text(id);
  for (std::size_t at = result.find(mark_text); at != std::string::npos; at = result.find(mark_text, at)) {
    result.replace(at, mark_text.size(), at == 0 ? "" : " ");
  }
  return result;
}

std::unique_ptr<Tokenizer> read_t5_tokenizer(const json::Value& file) {
  check_splits(file.at("pre_tokenizer"));
  const json::Value& model = file.at("model");
  expect_text(model, "type", "Unigram");
  if (const json::Value* fallback = model.find("byte_fallback"); fallback != nullptr && fallback->boolean("byte_fallback")) {
    throw Error("byte_fallback is not supported");
  }
  Unigram unigram(read_pieces(model), model.integer_at("unk_id"));
  return std::make_unique<T5Tokenizer>(read_added_tokens(file), read_charsmap(file.at("normalizer")), std::move(unigram));
}

}  // namespace dq
