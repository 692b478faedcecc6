#pragma once

#include <string>
#include <string_view>

namespace dq::unicode {

/// Code points, without surrogates.
using Text = std::u32string;

/// Throws Error: not well-formed UTF-8.
Text decode(std::string_view utf8);
std::string encode(const Text& text);

/// Of the Unicode versions that the host's tokenizers know: \p{L}, \p{N}, \s.
bool is_letter(char32_t code);
bool is_number(char32_t code);
bool is_space(char32_t code);

/// Where the grapheme that begins there ends: a character, the marks that belong to it, and what they are put in front of. One of
/// 6 bytes and more may be given in parts: syllables of Hangul, flags and joined emoji are.
std::size_t end_of_grapheme(const Text& text, std::size_t begin);

/// Each character by itself: a sigma at the end of a word is one as any other.
Text lower_case(const Text& text);

/// Canonically decomposed, ordered and composed (UAX 15).
Text nfc(const Text& text);

}  // namespace dq::unicode
