#include "prompt.h"

#include <algorithm>

#include "clip_tokenizer.h"
#include "error.h"
#include "files.h"
#include "json.h"
#include "t5_tokenizer.h"

namespace dq {
namespace {

constexpr std::size_t most_characters = 10000;

bool is_digit(char32_t code) { return code >= U'0' && code <= U'9'; }

/// "(word:1.3)" that begins at `at`: where it ends, else 0. As on the host: \([^()]*:\s*-?\d*\.?\d+\s*\)
std::size_t end_of_weighted(const unicode::Text& text, std::size_t at) {
  const std::size_t end = text.find_first_of(U"()", at + 1);
  if (end == unicode::Text::npos || text[end] != U')') return 0;
  std::size_t i = text.rfind(U':', end);
  if (i == unicode::Text::npos || i <= at) return 0;
  const auto skip = [&](bool (*is)(char32_t)) { while (i < end && is(text[i])) ++i; };
  ++i;
  skip(unicode::is_space);
  if (text[i] == U'-') ++i;
  skip(is_digit);
  if (text[i] == U'.') ++i;
  skip(is_digit);
  const bool number = is_digit(text[i - 1]);
  skip(unicode::is_space);
  return number && i == end ? end + 1 : 0;
}

/// "<token>", "<lora:name:1>", "<|endoftext|>".
std::size_t end_of_token(const unicode::Text& text, std::size_t at) {
  std::size_t i = at + 1;
  if (i < text.size() && text[i] == U'|') {
    const std::size_t end = text.find(U'|', i + 1);
    return end != unicode::Text::npos && end + 1 < text.size() && text[end + 1] == U'>' ? end + 2 : 0;
  }
  while (i < text.size() && (unicode::is_letter(text[i]) || unicode::is_number(text[i]) || text[i] == U'_' || text[i] == U'-')) ++i;
  if (i == at + 1) return 0;
  if (i < text.size() && text[i] == U':') {
    while (i < text.size() && text[i] != U'<' && text[i] != U'>' && !unicode::is_space(text[i])) ++i;
  }
  return i < text.size() && text[i] == U'>' ? i + 1 : 0;
}

/// The notation of other programs that begins there: where it ends, else 0. The rule is the host's (toolchain/parts/prompting.py).
std::size_t end_of_notation(const unicode::Text& text, std::size_t at) {
  if (text[at] == U'(') return at + 1 < text.size() && text[at + 1] == U'(' ? at + 2 : end_of_weighted(text, at);
  if (text[at] == U'[') return at + 1 < text.size() && text[at + 1] == U'[' ? at + 2 : 0;
  return text[at] == U'<' ? end_of_token(text, at) : 0;
}

}  // namespace

void check_prompt(const std::string& option, const std::string& utf8) {
  const unicode::Text text = unicode::decode(utf8);
  if (text.size() > most_characters) {
    throw Error(option + " has " + std::to_string(text.size()) + " characters, allowed are " + std::to_string(most_characters) + "; shorten it");
  }
  for (std::size_t at = 0; at < text.size(); ++at) {
    const std::size_t end = end_of_notation(text, at);
    if (end == 0) continue;
    const std::string found = unicode::encode(text.substr(at, std::min<std::size_t>(end - at, 30)));
    throw Error(option + ": weights and embeddings such as '" + found + "' are not supported, the text encoder would read them as letters; write plain words");
  }
}

std::string lower_and_stripped(const std::string& text) {
  const unicode::Text lower = unicode::lower_case(unicode::decode(text));
  const auto is_blank = [](char32_t code) { return unicode::is_space(code) || (code >= 0x1C && code <= 0x1F); };
  std::size_t begin = 0, end = lower.size();
  while (begin < end && is_blank(lower[begin])) ++begin;
  while (begin < end && is_blank(lower[end - 1])) --end;
  return unicode::encode(lower.substr(begin, end - begin));
}

EncodedPrompt encode_prompt(const Tokenizer& tokenizer, const TokenizerPart& part, const std::string& text) {
  EncodedPrompt prompt;
  std::vector<std::int64_t> ids = tokenizer.ids(part.lower ? lower_and_stripped(text) : text);
  const std::size_t room = part.length - (part.begin ? 2 : 1), kept = std::min(ids.size(), room);
  const auto cut = ids.begin() + static_cast<std::ptrdiff_t>(kept);
  if (cut != ids.end()) prompt.left_out = tokenizer.text({cut, ids.end()});
  if (part.begin) prompt.ids.push_back(*part.begin);
  prompt.ids.insert(prompt.ids.end(), ids.begin(), cut);
  prompt.ids.push_back(part.end);
  prompt.mask.assign(prompt.ids.size(), 1.0F);
  prompt.ids.resize(part.length, part.pad);
  prompt.mask.resize(part.length, 0.0F);
  return prompt;
}

std::unique_ptr<Tokenizer> read_tokenizer(const std::filesystem::path& folder, const std::string& kind) {
  const std::filesystem::path path = folder / "tokenizer.json";
  const Bytes bytes = read_file(path);
  try {
    const json::Value file = json::parse(as_text(bytes));
    if (kind == "clip") return read_clip_tokenizer(file);
    return read_t5_tokenizer(file);
  } catch (const Error& error) {
    throw Error(path.string() + ": " + error.what() + export_again);
  }
}

}  // namespace dq
