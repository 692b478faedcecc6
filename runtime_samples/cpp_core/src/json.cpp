#include "json.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "error.h"
#include "number_text.h"
#include "utf8.h"

namespace dq::json {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Value document() {
    Value result = value(0);
    skip_space();
    if (at_ < text_.size()) fail("expected the end");
    return result;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error("not valid JSON at byte " + std::to_string(at_) + ": " + what);
  }

  // The text need not end with a NUL; a NUL inside it is refused everywhere a token is expected.
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  bool accept(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\n\r").find(text_[at_]) != std::string_view::npos) ++at_;
  }

  Value value(int depth) {
    if (depth > max_depth) fail("nested deeper than " + std::to_string(max_depth));
    skip_space();
    switch (peek()) {
      case '{': return object(depth);
      case '[': return list(depth);
      case '"': return Value(Value::Content(string()));
      case 't': word("true"); return Value(Value::Content(true));
      case 'f': word("false"); return Value(Value::Content(false));
      case 'n': word("null"); return Value();
      default: return Value(Value::Content(number()));
    }
  }

  void word(std::string_view wanted) {
    if (text_.substr(at_, wanted.size()) != wanted) fail("unknown word");
    at_ += wanted.size();
  }

  Value list(int depth) {
    ++at_;
    Value::List items;
    skip_space();
    if (accept(']')) return Value(Value::Content(std::move(items)));
    do {
      items.push_back(value(depth + 1));
      skip_space();
    } while (accept(','));
    if (!accept(']')) fail("expected ',' or ']'");
    return Value(Value::Content(std::move(items)));
  }

  Value object(int depth) {
    ++at_;
    Value::Object members;
    skip_space();
    if (accept('}')) return Value(Value::Content(std::move(members)));
    do {
      skip_space();
      if (peek() != '"') fail("expected a name");
      std::string name = string();
      skip_space();
      if (!accept(':')) fail("expected ':'");
      members.push_back({std::move(name), value(depth + 1)});
      skip_space();
    } while (accept(','));
    if (!accept('}')) fail("expected ',' or '}'");
    std::sort(members.begin(), members.end(), [](const Member& a, const Member& b) { return a.name < b.name; });
    const auto twice = std::adjacent_find(members.begin(), members.end(),
                                          [](const Member& a, const Member& b) { return a.name == b.name; });
    if (twice != members.end()) fail("a name appears twice in an object");
    return Value(Value::Content(std::move(members)));
  }

  void digits() {
    if (!is_digit(peek())) fail("expected a value");
    while (is_digit(peek())) ++at_;
  }

  Number number() {
    const std::size_t begin = at_;
    bool is_integer = true;
    accept('-');
    if (!accept('0')) digits();
    if (accept('.')) {
      is_integer = false;
      digits();
    }
    if (accept('e') || accept('E')) {
      is_integer = false;
      if (!accept('+')) accept('-');
      digits();
    }
    const std::string copy(text_.substr(begin, at_ - begin));  // ends with the NUL that strtod needs
    const NumbersWithPoint with_point;
    Number result;
    char* end = nullptr;
    result.value = std::strtod(copy.c_str(), &end);
    if (end != copy.c_str() + copy.size()) fail("a number cannot be read");
    if (!std::isfinite(result.value)) fail("a number is too large");
    if (is_integer) {
      errno = 0;
      result.integer = std::strtoll(copy.c_str(), nullptr, 10);
      result.is_integer = errno == 0;
    }
    return result;
  }

  std::string string() {
    ++at_;
    std::string result;
    while (!accept('"')) {
      if (at_ >= text_.size()) fail("unclosed text");
      if (static_cast<unsigned char>(text_[at_]) < 0x20) fail("a control character in text");
      if (accept('\\')) {
        escape(result);
        continue;
      }
      const std::size_t length = utf8_length(text_.substr(at_));
      if (length == 0) fail("text is not UTF-8");
      result.append(text_.substr(at_, length));
      at_ += length;
    }
    return result;
  }

  void escape(std::string& result) {
    static constexpr std::string_view from = "\"\\/bfnrt", to = "\"\\/\b\f\n\r\t";
    const std::size_t simple = at_ < text_.size() ? from.find(text_[at_]) : std::string_view::npos;
    if (simple != std::string_view::npos) {
      ++at_;
      result.push_back(to[simple]);
      return;
    }
    if (!accept('u')) fail("unknown escape");
    std::uint32_t code = hex4();
    if (code >= 0xD800 && code < 0xDC00) {  // first half of a pair
      if (!accept('\\') || !accept('u')) fail("half a surrogate pair");
      const std::uint32_t low = hex4();
      if (low < 0xDC00 || low > 0xDFFF) fail("half a surrogate pair");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code <= 0xDFFF) {
      fail("half a surrogate pair");
    }
    append_utf8(result, code);
  }

  std::uint32_t hex4() {
    std::uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = peek();
      if (is_digit(c)) code = code * 16 + static_cast<std::uint32_t>(c - '0');
      else if (c >= 'a' && c <= 'f') code = code * 16 + static_cast<std::uint32_t>(c - 'a') + 10;
      else if (c >= 'A' && c <= 'F') code = code * 16 + static_cast<std::uint32_t>(c - 'A') + 10;
      else fail("expected four hexadecimal digits");
    }
    return code;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

Value parse(std::string_view text) { return Parser(text).document(); }

}  // namespace dq::json
