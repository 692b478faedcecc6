#include "option_words.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>

#include "error.h"
#include "number_text.h"

namespace dq {
namespace {

bool holds(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool is_digits(const std::string& text) { return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos; }

std::string listed(const OptionNames& names) {
  std::vector<std::string> all = names.with_value;
  all.insert(all.end(), names.alone.begin(), names.alone.end());
  std::string text;
  for (std::size_t i = 0; i < all.size(); ++i) text += (i == 0 ? "" : i + 1 < all.size() ? ", " : " and ") + all[i];
  return text;
}

}  // namespace

OptionWords::OptionWords(const std::vector<std::string>& words, const OptionNames& names) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& name = words[i];
    const bool with_value = holds(names.with_value, name);
    if (!with_value && !holds(names.alone, name)) {
      throw Error("unknown argument '" + name + "', allowed are " + listed(names) + see_help);
    }
    const bool none = i + 1 == words.size() || (words[i + 1].empty() && !holds(names.may_be_empty, name));
    if (with_value && none) throw Error(name + " needs a value" + see_help);
    if (!given_.emplace(name, with_value ? words[++i] : "").second) throw Error(name + " is given twice; give it once");
  }
}

const std::string& OptionWords::required(const std::string& name, const char* what) const {
  if (!has(name)) throw Error(name + " is missing; give " + what + see_help);
  return given_.at(name);
}

std::optional<std::size_t> OptionWords::count(const std::string& name, std::size_t least) const {
  if (!has(name)) return {};
  const std::string& text = given_.at(name);
  const bool good = is_digits(text) && text.size() <= 9;
  const unsigned long count = good ? std::strtoul(text.c_str(), nullptr, 10) : 0;
  if (!good || count < least) throw Error(name + " must be a number from " + std::to_string(least) + ", got '" + text + "'; change " + name);
  return count;
}

std::optional<double> OptionWords::number(const std::string& name) const {
  if (!has(name)) return {};
  const std::string& text = given_.at(name);
  const NumbersWithPoint with_point;
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end != text.c_str() + text.size() || !(std::fabs(value) <= 1e6)) {
    throw Error(name + " must be a number within a million, got '" + text + "'; change " + name);
  }
  return value;
}

std::optional<std::uint64_t> OptionWords::seed(const std::string& name) const {
  if (!has(name)) return {};
  const std::string& text = given_.at(name);
  errno = 0;
  const unsigned long long value = is_digits(text) ? std::strtoull(text.c_str(), nullptr, 10) : 0;
  if (!is_digits(text) || errno != 0 || value >> 63 != 0) {
    throw Error(name + " must be a number from 0 to 9223372036854775807, got '" + text + "'; change " + name);
  }
  return value;
}

}  // namespace dq
