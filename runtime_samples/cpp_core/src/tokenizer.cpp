#include "tokenizer.h"

#include <utility>

namespace dq {
namespace {

/// A part of a text: an added token, or what lies between them.
struct Stretch {
  unicode::Text text;
  const AddedToken* token = nullptr;
};

/// Leftmost first, of those at one place the longest.
std::vector<Stretch> split(const unicode::Text& text, const std::vector<AddedToken>& tokens, bool normalized) {
  std::vector<Stretch> parts;
  unicode::Text between;
  for (std::size_t at = 0; at < text.size();) {
    const AddedToken* best = nullptr;
    for (const AddedToken& token : tokens) {
      const bool here = token.normalized == normalized && text.compare(at, token.text.size(), token.text) == 0;
      if (here && (best == nullptr || token.text.size() > best->text.size())) best = &token;
    }
    if (best == nullptr) {
      between.push_back(text[at++]);
      continue;
    }
    if (!between.empty()) parts.push_back({std::exchange(between, {})});
    parts.push_back({{}, best});
    at += best->text.size();
  }
  if (!between.empty()) parts.push_back({between});
  return parts;
}

}  // namespace

std::vector<std::int64_t> Tokenizer::ids(std::string_view text) const {
  std::vector<std::int64_t> ids;
  for (const Stretch& written : split(unicode::decode(text), added_, false)) {
    if (written.token != nullptr) {
      ids.push_back(written.token->id);
      continue;
    }
    for (const Stretch& part : split(normalize(written.text), added_, true)) {
      if (part.token != nullptr) ids.push_back(part.token->id);
      else append(part.text, ids);
    }
  }
  return ids;
}

}  // namespace dq
