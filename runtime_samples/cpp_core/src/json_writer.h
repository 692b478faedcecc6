#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dq::json {

/// Writes JSON from front to back, one space of indentation per level, members in the order in which they come.
class Writer {
 public:
  Writer& begin_object() { return begin('{'); }
  Writer& end_object() { return end('}'); }
  Writer& begin_list() { return begin('['); }
  Writer& end_list() { return end(']'); }

  Writer& key(std::string_view name);
  Writer& value(std::string_view text);
  Writer& value(const char* text) { return value(std::string_view(text)); }
  Writer& value(bool boolean);
  /// Shortest form that reads back the same; null if not finite, as JSON holds no NaN.
  Writer& value(double number);
  Writer& value(std::int64_t integer);
  Writer& null();

  const std::string& text() const { return text_; }

 private:
  Writer& begin(char bracket);
  Writer& end(char bracket);
  void separate();
  void new_line();

  std::string text_;
  std::vector<bool> has_items_;
  bool after_key_ = false;
};

}  // namespace dq::json
