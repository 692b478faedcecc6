#include "clip_tokenizer.h"

namespace dq {
namespace {

using unicode::Text;

const Text starts_with[] = {U"<|startoftext|>", U"<|endoftext|>", U"'s", U"'t", U"'re", U"'ve", U"'m", U"'ll", U"'d"};

enum class Kind { letter, number, space, sign };

Kind kind_of(char32_t code) {
  if (unicode::is_letter(code)) return Kind::letter;
  if (unicode::is_number(code)) return Kind::number;
  return unicode::is_space(code) ? Kind::space : Kind::sign;
}

/// Where the run of the kind that begins at `at` ends.
std::size_t end_of_run(const Text& text, std::size_t at) {
  const Kind kind = kind_of(text[at]);
  while (at < text.size() && kind_of(text[at]) == kind) ++at;
  return at;
}

/// Length of the fixed text that stands there, 0 for none.
std::size_t fixed_at(const Text& text, std::size_t at) {
  for (const Text& fixed : starts_with) {
    if (text.compare(at, fixed.size(), fixed) == 0) return fixed.size();
  }
  return 0;
}

}  // namespace

Text ClipTokenizer::normalize(const Text& text) const {
  Text spaced;
  for (const char32_t code : unicode::nfc(text)) {
    const bool space = unicode::is_space(code), again = space && !spaced.empty() && spaced.back() == U' ';
    if (!again) spaced.push_back(space ? U' ' : code);
  }
  return unicode::lower_case(spaced);
}

void ClipTokenizer::append(const Text& text, std::vector<std::int64_t>& ids) const {
  const auto word = [&](std::size_t begin, std::size_t end) { bpe_.append(unicode::encode(text.substr(begin, end - begin)), ids); };
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at, fixed = fixed_at(text, at);
    if (fixed > 3) {  // a special token's name that is none here: the name and the signs around it
      at += fixed;
      word(begin, begin + 2);
      word(begin + 2, at - 2);
      word(at - 2, at);
    } else if (fixed > 0) {
      word(begin, at += fixed);
    } else if (kind_of(text[at]) == Kind::number) {
      word(begin, ++at);
    } else {
      at = end_of_run(text, at);
      if (kind_of(text[begin]) != Kind::space) word(begin, at);
    }
  }
}

}  // namespace dq
