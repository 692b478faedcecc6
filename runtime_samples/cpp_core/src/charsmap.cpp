#include "charsmap.h"

#include <cstring>

#include "error.h"
#include "unicode_tables.h"

namespace dq {
namespace {

constexpr std::size_t shorter_than = 6;  // bytes of a grapheme that is replaced as one

std::string decode_base64(const std::string& text) {
  std::string bytes;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    if (c == '=') break;
    const char* alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char* found = c == '\0' ? nullptr : std::strchr(alphabet, c);
    if (found == nullptr) throw Error("precompiled_charsmap is not base64");
    bits = (bits << 6) | static_cast<std::uint32_t>(found - alphabet);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes.push_back(static_cast<char>(static_cast<unsigned char>((bits >> count) & 0xFF)));
  }
  return bytes;
}

// A unit of the double array: a label, whether a value hangs on it, and how far its children are.
std::uint32_t label_of(std::uint32_t unit) { return unit & 0x800000FFU; }
bool has_value(std::uint32_t unit) { return ((unit >> 8) & 1) != 0; }
std::uint32_t offset_of(std::uint32_t unit) { return (unit >> 10) << ((unit & (1U << 9)) >> 6); }

}  // namespace

Charsmap::Charsmap(const std::string& base64) {
  const std::string bytes = decode_base64(base64);
  std::uint32_t size = 0;
  if (bytes.size() >= sizeof size) std::memcpy(&size, bytes.data(), sizeof size);
  if (size == 0 || size % sizeof size != 0 || size > bytes.size() - sizeof size) throw Error("precompiled_charsmap is damaged");
  units_.resize(size / sizeof size);
  std::memcpy(units_.data(), bytes.data() + sizeof size, size);
  replacements_ = bytes.substr(sizeof size + size);
  if (replacements_.empty() || replacements_.back() != '\0') throw Error("precompiled_charsmap is damaged");
  unicode::decode(replacements_);
}

const char* Charsmap::find(std::string_view text) const {
  const auto unit_at = [&](std::uint32_t at) {
    if (at >= units_.size()) throw Error("precompiled_charsmap is damaged");
    return units_[at];
  };
  std::uint32_t at = offset_of(unit_at(0));
  for (const char c : text) {
    const std::uint32_t byte = static_cast<unsigned char>(c);
    if (byte == 0) return nullptr;
    at ^= byte;
    const std::uint32_t unit = unit_at(at);
    if (label_of(unit) != byte) return nullptr;
    at ^= offset_of(unit);
    if (!has_value(unit)) continue;
    const std::uint32_t place = unit_at(at) & 0x7FFFFFFFU;  // of the shortest prefix, even if there are longer ones
    if (place >= replacements_.size()) throw Error("precompiled_charsmap is damaged");
    return replacements_.data() + place;
  }
  return nullptr;
}

std::string Charsmap::normalize(const unicode::Text& text) const {
  std::string result;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = unicode::end_of_grapheme(text, begin);
    const std::string grapheme = unicode::encode(text.substr(begin, end - begin));
    const char* whole = grapheme.size() < shorter_than ? find(grapheme) : nullptr;
    if (whole != nullptr) result += whole;
    for (std::size_t i = begin; whole == nullptr && i < end; ++i) {
      const std::string character = unicode::encode(text.substr(i, 1));
      const char* replacement = find(character);
      result += replacement != nullptr ? replacement : character;
    }
    begin = end;
  }
  return result;
}

}  // namespace dq
