#include "prompt.h"

#include <algorithm>

#include "clip_tokenizer.h"
#include "error.h"

namespace dq {
namespace {

/// The text from `open` to the nearest `close` that has no other bracket within, from `at` on; empty if there is none.
std::string bracketed(const std::string& text, char open, char close, std::size_t& at) {
  while ((at = text.find(open, at)) != std::string::npos) {
    const std::size_t end = text.find_first_of(std::string{open, close}, at + 1);
    if (end != std::string::npos && text[end] == close) return text.substr(at, end + 1 - at);
    ++at;
  }
  return "";
}

/// "(word:1.3)": digits and a point behind the last colon.
bool is_weighted(const std::string& found) {
  const std::size_t colon = found.rfind(':');
  if (colon == std::string::npos || colon < 2) return false;
  const std::string number = found.substr(colon + 1, found.size() - colon - 2);
  return number.find_first_of("0123456789") != std::string::npos && number.find_first_not_of("0123456789.+- ") == std::string::npos;
}

bool is_name(const std::string& found) { return found.size() > 2 && found.find_first_of(" \t\n") == std::string::npos; }

bool is_anything(const std::string& found) { return found.size() > 2; }

void refuse(const std::string& option, const std::string& text, char open, char close, bool (*is_meant)(const std::string&),
            const char* what) {
  for (std::size_t at = 0;; ++at) {
    const std::string found = bracketed(text, open, close, at);
    if (found.empty()) return;
    if (is_meant(found)) throw Error(option + " has " + found + ", but " + what);
  }
}

}  // namespace

void check_prompt(const std::string& option, const std::string& text) {
  refuse(option, text, '(', ')', is_weighted, "words cannot be weighted; write it without the weight");
  refuse(option, text, '[', ']', is_anything, "words cannot be weighted; write it without the brackets");
  refuse(option, text, '<', '>', is_name, "textual inversions cannot be loaded; describe it in words");
}

EncodedPrompt encode_prompt(const Tokenizer& tokenizer, const TokenizerPart& part, const std::string& text) {
  EncodedPrompt prompt;
  std::vector<std::int64_t> ids = tokenizer.ids(text);
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

std::unique_ptr<Tokenizer> read_tokenizer(const std::filesystem::path& bundle, const TokenizerPart& part) {
  if (part.kind == "clip") {
    return read_clip_tokenizer(bundle / part.folder, {part.pad, part.begin.value_or(-1), part.end});
  }
  throw Error("T5's tokenizer is not supported yet");
}

}  // namespace dq
