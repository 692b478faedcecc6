#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "files.h"

namespace dq {

/// Changes files at random, the same way for the same seed on every machine.
class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : state_(seed) {}

  /// A member of the corpus with one to eight changes.
  Bytes changed(const std::vector<Bytes>& corpus) {
    Bytes bytes = corpus[below(corpus.size())];
    for (std::uint64_t i = 1 + below(8) / (1 + below(4)); i > 0; --i) change(bytes, corpus);
    if (bytes.size() > longest) bytes.resize(longest);
    if (below(2) == 0) repair_length(bytes);
    return bytes;
  }

 private:
  static constexpr std::size_t longest = 4096;

  std::uint64_t next() {  // splitmix64
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }

  std::size_t below(std::size_t limit) { return static_cast<std::size_t>(next() % limit); }

  void change(Bytes& bytes, const std::vector<Bytes>& corpus) {
    static constexpr std::string_view tokens[] = {
        "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u0000", "\\ud83d", "\\ude00", "-", "0", "-1", "1e400", "0.5",
        "null", "true", "9223372036854775807", "9223372036854775808", "4294967296", "18446744073709551615",
        "\"shape\"", "\"dtype\"", "\"F32\"", "\"I64\"", "\"data_offsets\"", "\"__metadata__\"",
        "[[[[[[[[[[[[[[[[", "\xC3\xA9", "\xF0\x9F\x98\x80", "\xFF"};
    const std::size_t at = below(bytes.size() + 1), left = bytes.size() - at;
    const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    switch (below(7)) {
      case 0:
        if (left > 0) *place = static_cast<std::uint8_t>(*place ^ (1U << below(8)));
        break;
      case 1:
        if (left > 0) *place = static_cast<std::uint8_t>(next());
        break;
      case 2:
        bytes.erase(place, place + static_cast<std::ptrdiff_t>(below(left < 16 ? left + 1 : 16)));
        break;
      case 3: {
        const std::string_view token = tokens[below(sizeof tokens / sizeof tokens[0])];
        bytes.insert(place, token.begin(), token.end());
        break;
      }
      case 4: {  // over what is there, so that lengths stay
        const std::string_view token = tokens[below(sizeof tokens / sizeof tokens[0])];
        for (std::size_t i = 0; i < token.size() && i < left; ++i) bytes[at + i] = static_cast<std::uint8_t>(token[i]);
        break;
      }
      case 5: {  // a piece of another file
        const Bytes& other = corpus[below(corpus.size())];
        if (other.empty()) break;
        const std::size_t from = below(other.size()), size = 1 + below(std::min<std::size_t>(64, other.size() - from));
        const auto begin = other.begin() + static_cast<std::ptrdiff_t>(from);
        bytes.insert(place, begin, begin + static_cast<std::ptrdiff_t>(size));
        break;
      }
      default:
        if (below(8) == 0) bytes.resize(at);
    }
  }

  /// Most changes leave the header's length wrong, and end there; this one takes the header to end at the last brace.
  void repair_length(Bytes& bytes) {
    if (bytes.size() < 9 || bytes[7] != 0 || bytes[8] != '{') return;
    for (std::size_t end = bytes.size(); end > 8; --end) {
      if (bytes[end - 1] != '}') continue;
      const std::uint64_t length = end - 8;
      std::memcpy(bytes.data(), &length, sizeof length);
      return;
    }
  }

  std::uint64_t state_;
};

}  // namespace dq
