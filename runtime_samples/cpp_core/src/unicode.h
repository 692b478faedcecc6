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

/// Each character by itself: a sigma at the end of a word is one as any other.
Text lower_case(const Text& text);

/// Canonically decomposed, ordered and composed (UAX 15).
Text nfc(const Text& text);

}  // namespace dq::unicode
