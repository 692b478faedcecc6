#include "json_writer.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "number_text.h"
#include "utf8.h"

namespace dq::json {
namespace {

std::string quoted(std::string_view text) {
  std::string result = "\"";
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const auto first = static_cast<unsigned char>(text.front());
    if (length == 0) {
      append_utf8(result, 0xFFFD);  // a path may hold any bytes, JSON only text
    } else if (first < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(first));
      result += escape;
    } else {
      if (first == '"' || first == '\\') result.push_back('\\');
      result.append(text.substr(0, length));
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return result + '"';
}

}  // namespace

void Writer::new_line() {
  text_.push_back('\n');
  text_.append(has_items_.size(), ' ');
}

void Writer::separate() {
  if (after_key_) {
    after_key_ = false;
    return;
  }
  if (has_items_.empty()) return;
  if (has_items_.back()) text_.push_back(',');
  has_items_.back() = true;
  new_line();
}

Writer& Writer::begin(char bracket) {
  separate();
  text_.push_back(bracket);
  has_items_.push_back(false);
  return *this;
}

Writer& Writer::end(char bracket) {
  const bool had_items = has_items_.back();
  has_items_.pop_back();
  if (had_items) new_line();
  text_.push_back(bracket);
  return *this;
}

Writer& Writer::key(std::string_view name) {
  value(name);
  text_ += ": ";
  after_key_ = true;
  return *this;
}

Writer& Writer::value(std::string_view text) {
  separate();
  text_ += quoted(text);
  return *this;
}

Writer& Writer::value(bool boolean) {
  separate();
  text_ += boolean ? "true" : "false";
  return *this;
}

Writer& Writer::value(double number) {
  if (!std::isfinite(number)) return null();
  separate();
  const NumbersWithPoint with_point;
  char shortest[40];
  for (int digits = 15; digits <= 17; ++digits) {
    std::snprintf(shortest, sizeof shortest, "%.*g", digits, number);
    if (std::strtod(shortest, nullptr) == number) break;
  }
  text_ += shortest;
  return *this;
}

Writer& Writer::value(std::int64_t integer) {
  separate();
  text_ += std::to_string(integer);
  return *this;
}

Writer& Writer::null() {
  separate();
  text_ += "null";
  return *this;
}

}  // namespace dq::json
