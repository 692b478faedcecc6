#include "clip_tokenizer.h"
#include "error.h"
#include "tokenizer_files.h"

namespace dq {
namespace {

constexpr const char* pattern =
    R"(<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";

const json::Value::List& expect_list(const json::Value& object, const char* key, std::size_t size) {
  const json::Value::List& list = object.list_at(key);
  if (list.size() != size) throw Error(std::string(key) + " must be " + std::to_string(size) + ", got " + std::to_string(list.size()));
  return list;
}

/// What the class computes must be what the file says.
void check_steps(const json::Value& file) {
  const json::Value::List& normalizers = expect_list(file.at("normalizer"), "normalizers", 3);
  expect_text(normalizers[0], "type", "NFC");
  expect_text(normalizers[1], "type", "Replace");
  expect_text(normalizers[1].at("pattern"), "Regex", R"(\s+)");
  expect_text(normalizers[1], "content", " ");
  expect_text(normalizers[2], "type", "Lowercase");
  const json::Value::List& splits = expect_list(file.at("pre_tokenizer"), "pretokenizers", 2);
  expect_text(splits[0], "type", "Split");
  expect_text(splits[0].at("pattern"), "Regex", pattern);
  expect_text(splits[1], "type", "ByteLevel");
  expect_text(file.at("model"), "end_of_word_suffix", "</w>");
}

std::int64_t id_of(const Vocabulary& vocabulary, const std::string& token) {
  const auto found = vocabulary.find(token);
  if (found == vocabulary.end()) throw Error("the vocabulary lacks the token " + token);
  return found->second;
}

}  // namespace

std::unique_ptr<Tokenizer> read_clip_tokenizer(const json::Value& file) {
  check_steps(file);
  const json::Value& model = file.at("model");
  Vocabulary vocabulary = read_vocabulary(model.at("vocab"));
  const std::int64_t unknown = id_of(vocabulary, model.text_at("unk_token"));
  return std::make_unique<ClipTokenizer>(read_added_tokens(file), Bpe(std::move(vocabulary), read_merges(model.at("merges")), unknown));
}

}  // namespace dq
