#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace dq {

/// Bytes of the first character of `text`, 0 if it is not well-formed UTF-8 (too long a form, surrogate, cut off).
std::size_t utf8_length(std::string_view text);

/// `code`, a Unicode scalar value, at the end of `text`.
void append_utf8(std::string& text, std::uint32_t code);

/// One line of at most 1000 bytes for a terminal: line ends become spaces, and what a terminal would obey or hide (control
/// characters, marks that change the direction of writing) and bytes that are no UTF-8 become '?'.
std::string printable(std::string_view text);

}  // namespace dq
