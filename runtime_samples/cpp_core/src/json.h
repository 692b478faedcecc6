#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace dq::json {

struct Member;

/// A number; `integer` is its exact value where the text had no fraction or exponent and 64 bits hold it.
struct Number {
  double value = 0;
  bool is_integer = false;
  std::int64_t integer = 0;
};

/// A JSON value that was read. All accessors throw dq::Error, which names the key and the type that was found.
class Value {
 public:
  using List = std::vector<Value>;
  using Object = std::vector<Member>;  // sorted by name, no name twice
  using Content = std::variant<std::monostate, bool, Number, std::string, List, Object>;

  // Defined where Member is complete: its list is part of the content.
  Value();
  explicit Value(Content content);
  Value(const Value&);
  Value(Value&&) noexcept;
  Value& operator=(const Value&);
  Value& operator=(Value&&) noexcept;
  ~Value();

  bool is_null() const;
  bool is_text() const;
  bool boolean(const char* what) const;
  double number(const char* what) const;
  std::int64_t integer(const char* what) const;
  const std::string& text(const char* what) const;
  const List& list(const char* what) const;
  const Object& object(const char* what) const;

  /// Member `name` of an object; nullptr if there is none.
  const Value* find(std::string_view name) const;
  /// Member `name` of an object, which must be there.
  const Value& at(const char* name) const;

  double number_at(const char* name) const { return at(name).number(name); }
  std::int64_t integer_at(const char* name) const { return at(name).integer(name); }
  const std::string& text_at(const char* name) const { return at(name).text(name); }
  const List& list_at(const char* name) const { return at(name).list(name); }
  const Object& object_at(const char* name) const { return at(name).object(name); }

 private:
  template <typename T>
  const T& get(const char* what, const char* wanted) const;

  Content content_;
};

struct Member {
  std::string name;
  Value value;
};

/// Deepest nesting that is read: the reader recurses, and so does a Value's destructor.
inline constexpr int max_depth = 64;

/// Strict RFC 8259: UTF-8, no name twice in an object, nothing after the value. Throws dq::Error with the place.
Value parse(std::string_view text);

}  // namespace dq::json
