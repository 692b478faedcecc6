#include "utf8.h"

namespace dq {
namespace {

/// U+200B to U+200F, U+2028 to U+202E, U+2060 to U+206F, and the byte order mark.
bool is_hidden(std::string_view character) {
  const auto last = static_cast<unsigned char>(character.back());
  if (character.substr(0, 2) == "\xe2\x80") return (last >= 0x8b && last <= 0x8f) || (last >= 0xa8 && last <= 0xae);
  if (character.substr(0, 2) == "\xe2\x81") return last >= 0xa0 && last <= 0xaf;
  return true;
}

}  // namespace


std::size_t utf8_length(std::string_view text) {
  if (text.empty()) return 0;
  const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[i])); };
  const std::uint32_t first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < length) return 0;
  std::uint32_t code = first & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    code = (code << 6) | (byte(i) & 0x3F);
  }
  const std::uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  return code < least[length] || code > 0x10FFFF || surrogate ? 0 : length;
}

void append_utf8(std::string& text, std::uint32_t code) {
  const auto put = [&](std::uint32_t byte) { text.push_back(static_cast<char>(static_cast<unsigned char>(byte))); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6));
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

std::string printable(std::string_view text) {
  constexpr std::size_t longest = 1000;
  std::string shown;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_length(text.substr(at));
    const std::string_view character = text.substr(at, length == 0 ? 1 : length);
    at += character.size();
    const auto first = static_cast<unsigned char>(character[0]);
    const bool control = length == 1 && (first < 0x20 || first == 0x7f);
    const bool c1 = length == 2 && first == 0xc2 && static_cast<unsigned char>(character[1]) < 0xa0;
    const bool mark = character.substr(0, 2) == "\xe2\x80" || character.substr(0, 2) == "\xe2\x81" || character == "\xef\xbb\xbf";
    if (shown.size() + character.size() > longest) return shown + "...";
    if (character == "\n" || character == "\r" || character == "\t") {
      shown += ' ';
    } else if (length == 0 || control || c1 || (mark && is_hidden(character))) {
      shown += '?';
    } else {
      shown += character;
    }
  }
  return shown;
}

}  // namespace dq
