#include "unicode.h"

#include "error.h"
#include "unicode_tables.h"
#include "utf8.h"

namespace dq::unicode {
namespace {

/// The row of the table of ranges that holds the code, null if none does; a row is `width` numbers, the first two its range.
const std::uint32_t* find_range(const Table& table, std::size_t width, char32_t code) {
  std::size_t low = 0, high = table.size / width;
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    const std::uint32_t* row = table.numbers + middle * width;
    if (code < row[0]) {
      high = middle;
    } else if (code > row[1]) {
      low = middle + 1;
    } else {
      return row;
    }
  }
  return nullptr;
}

}  // namespace

Text decode(std::string_view utf8) {
  Text text;
  for (std::size_t at = 0; at < utf8.size();) {
    const std::size_t length = utf8_length(utf8.substr(at));
    if (length == 0) throw Error("text is not UTF-8 at byte " + std::to_string(at));
    const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(utf8[at + i])); };
    std::uint32_t code = length == 1 ? byte(0) : byte(0) & (0x7FU >> length);
    for (std::size_t i = 1; i < length; ++i) code = (code << 6) | (byte(i) & 0x3F);
    text.push_back(code);
    at += length;
  }
  return text;
}

std::string encode(const Text& text) {
  std::string utf8;
  for (const char32_t code : text) append_utf8(utf8, code);
  return utf8;
}

bool is_letter(char32_t code) { return find_range(letters, 2, code) != nullptr; }
bool is_number(char32_t code) { return find_range(numbers, 2, code) != nullptr; }
bool is_space(char32_t code) { return find_range(spaces, 2, code) != nullptr; }

std::size_t end_of_grapheme(const Text& text, std::size_t begin) {
  std::size_t end = begin + 1;
  if (text[begin] == U'\r' && end < text.size() && text[end] == U'\n') return end + 1;
  if (find_range(controls, 2, text[begin]) != nullptr) return end;
  const auto belongs = [&](std::size_t i) {
    if (find_range(extends, 2, text[i]) != nullptr) return true;
    return find_range(prepends, 2, text[i - 1]) != nullptr && find_range(controls, 2, text[i]) == nullptr;
  };
  while (end < text.size() && belongs(end)) ++end;
  return end;
}

Text lower_case(const Text& text) {
  Text result;
  for (const char32_t code : text) {
    const std::uint32_t* row = find_range(lower, 4, code);
    const bool long_one = code == lower_long.numbers[0];  // the only character whose lower case is two
    if (long_one) {
      result.push_back(lower_long.numbers[1]);
      result.push_back(lower_long.numbers[2]);
    } else if (row != nullptr && (code - row[0]) % row[3] == 0) {
      result.push_back(code + row[2]);
    } else {
      result.push_back(code);
    }
  }
  return result;
}

}  // namespace dq::unicode
