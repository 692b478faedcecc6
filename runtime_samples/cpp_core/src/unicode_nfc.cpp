#include <algorithm>
#include <map>
#include <utility>

#include "unicode.h"
#include "unicode_tables.h"

namespace dq::unicode {
namespace {

// Syllables of Hangul are arithmetic: a first consonant, a vowel and perhaps a last consonant.
constexpr char32_t syllables = 0xAC00, firsts = 0x1100, vowels = 0x1161, lasts = 0x11A7;
constexpr char32_t first_count = 19, vowel_count = 21, last_count = 28;
constexpr char32_t syllable_count = first_count * vowel_count * last_count;

/// The row that begins with the code, null if there is none.
const std::uint32_t* find_row(const Table& table, std::size_t width, char32_t code) {
  std::size_t low = 0, high = table.size / width;
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (table.numbers[middle * width] < code) low = middle + 1;
    else high = middle;
  }
  const std::uint32_t* row = table.numbers + low * width;
  return low < table.size / width && row[0] == code ? row : nullptr;
}

std::uint32_t class_of(char32_t code) {
  std::size_t low = 0, high = classes.size / 3;
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    const std::uint32_t* row = classes.numbers + middle * 3;
    if (code < row[0]) high = middle;
    else if (code > row[1]) low = middle + 1;
    else return row[2];
  }
  return 0;
}

void decompose(char32_t code, Text& result) {
  if (code >= syllables && code < syllables + syllable_count) {
    const char32_t index = code - syllables;
    result.push_back(firsts + index / (vowel_count * last_count));
    result.push_back(vowels + index / last_count % vowel_count);
    if (index % last_count != 0) result.push_back(lasts + index % last_count);
  } else if (const std::uint32_t* one = find_row(singletons, 2, code)) {
    decompose(one[1], result);
  } else if (const std::uint32_t* two = find_row(pairs, 3, code)) {
    decompose(two[1], result);
    decompose(two[2], result);
  } else {
    result.push_back(code);
  }
}

/// Marks behind a character by their classes; those of one class keep their order.
void put_in_order(Text& text) {
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = begin;
    while (end < text.size() && class_of(text[end]) != 0) ++end;
    const auto at = [&](std::size_t i) { return text.begin() + static_cast<std::ptrdiff_t>(i); };
    std::stable_sort(at(begin), at(end), [](char32_t a, char32_t b) { return class_of(a) < class_of(b); });
    begin = end + 1;
  }
}

std::map<std::pair<char32_t, char32_t>, char32_t> read_composites() {
  std::map<std::pair<char32_t, char32_t>, char32_t> composites;
  for (std::size_t i = 0; i < pairs.size; i += 3) {
    const std::uint32_t* row = pairs.numbers + i;
    if (find_row(excluded, 1, row[0]) == nullptr) composites[{row[1], row[2]}] = row[0];
  }
  return composites;
}

/// What the two become, 0 if they stay two.
char32_t compose(char32_t a, char32_t b) {
  if (a >= firsts && a < firsts + first_count && b >= vowels && b < vowels + vowel_count) {
    return syllables + ((a - firsts) * vowel_count + (b - vowels)) * last_count;
  }
  const bool open = a >= syllables && a < syllables + syllable_count && (a - syllables) % last_count == 0;
  if (open && b > lasts && b < lasts + last_count) return a + (b - lasts);
  static const auto composites = read_composites();
  const auto found = composites.find({a, b});
  return found == composites.end() ? 0 : found->second;
}

}  // namespace

Text nfc(const Text& text) {
  Text apart;
  for (const char32_t code : text) decompose(code, apart);
  put_in_order(apart);
  Text result;
  std::size_t starter = 0;  // where in the result, the last character of class 0
  bool has_starter = false;
  std::uint32_t last = 0;  // class of the last character of the result, if it is not the starter itself
  for (const char32_t code : apart) {
    const std::uint32_t own = class_of(code);
    const bool adjacent = has_starter && starter + 1 == result.size();
    if (has_starter && (adjacent || last < own)) {  // nothing of its class or above, and no starter, is in between
      if (const char32_t both = compose(result[starter], code)) {
        result[starter] = both;
        continue;
      }
    }
    if (own == 0) {
      starter = result.size();
      has_starter = true;
    }
    last = own;
    result.push_back(code);
  }
  return result;
}

}  // namespace dq::unicode
