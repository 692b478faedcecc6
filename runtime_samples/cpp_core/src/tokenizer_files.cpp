#include "tokenizer_files.h"

#include "error.h"

namespace dq {
namespace {

bool flag(const json::Value& row, const char* name) {
  const json::Value* found = row.find(name);
  return found != nullptr && found->boolean(name);
}

std::pair<std::string, std::string> read_pair(const std::string& line) {
  const std::size_t space = line.find(' ');
  if (space == 0 || space == std::string::npos || space + 1 == line.size()) {
    throw Error("a merge must be two tokens with a space between, got '" + line.substr(0, 60) + "'");
  }
  return {line.substr(0, space), line.substr(space + 1)};
}

}  // namespace

std::vector<AddedToken> read_added_tokens(const json::Value& tokenizer) {
  std::vector<AddedToken> tokens;
  for (const json::Value& row : tokenizer.list_at("added_tokens")) {
    const std::string& content = row.text_at("content");
    for (const char* name : {"lstrip", "rstrip", "single_word"}) {
      if (flag(row, name)) throw Error("the added token " + content + " has " + name + ", which is not supported");
    }
    if (content.empty()) throw Error("an added token is empty");
    tokens.push_back({unicode::decode(content), row.integer_at("id"), flag(row, "normalized")});
  }
  return tokens;
}

Vocabulary read_vocabulary(const json::Value& vocabulary) {
  Vocabulary result;
  for (const json::Member& member : vocabulary.object("vocab")) {
    const std::int64_t id = member.value.integer("vocab");
    if (id < 0 || id > 0x7FFFFFFF) throw Error("the id of " + member.name + " must be 0 to 2147483647, got " + std::to_string(id));
    result.emplace(member.name, id);
  }
  return result;
}

Merges read_merges(const json::Value& merges) {
  Merges result;
  for (const json::Value& row : merges.list("merges")) {
    if (row.is_text()) {
      result.push_back(read_pair(row.text("merges")));
      continue;
    }
    const json::Value::List& pair = row.list("merges");
    if (pair.size() != 2) throw Error("a merge must be two tokens, got " + std::to_string(pair.size()));
    result.emplace_back(pair[0].text("merges"), pair[1].text("merges"));
  }
  return result;
}

void expect_text(const json::Value& object, const char* key, const std::string& wanted) {
  const std::string& found = object.text_at(key);
  if (found != wanted) throw Error(std::string(key) + " must be " + wanted + ", got " + found);
}

}  // namespace dq
