#include <algorithm>
#include <string>
#include <utility>

#include "error.h"
#include "json.h"

namespace dq::json {
namespace {

// In the order of Value::Content.
constexpr const char* type_names[] = {"null", "a boolean", "a number", "text", "a list", "an object"};

}  // namespace

Value::Value() = default;
Value::Value(Content content) : content_(std::move(content)) {}
Value::Value(const Value&) = default;
Value::Value(Value&&) noexcept = default;
Value& Value::operator=(const Value&) = default;
Value& Value::operator=(Value&&) noexcept = default;
Value::~Value() = default;

template <typename T>
const T& Value::get(const char* what, const char* wanted) const {
  if (const T* found = std::get_if<T>(&content_)) return *found;
  throw Error(std::string(what) + " must be " + wanted + ", got " + type_names[content_.index()]);
}

bool Value::is_null() const { return std::holds_alternative<std::monostate>(content_); }
bool Value::is_text() const { return std::holds_alternative<std::string>(content_); }
bool Value::boolean(const char* what) const { return get<bool>(what, "true or false"); }
double Value::number(const char* what) const { return get<Number>(what, "a number").value; }

std::int64_t Value::integer(const char* what) const {
  const Number& found = get<Number>(what, "an integer");
  if (!found.is_integer) throw Error(std::string(what) + " must be an integer of 64 bits, got another number");
  return found.integer;
}

const std::string& Value::text(const char* what) const { return get<std::string>(what, "text"); }
const Value::List& Value::list(const char* what) const { return get<List>(what, "a list"); }
const Value::Object& Value::object(const char* what) const { return get<Object>(what, "an object"); }

const Value* Value::find(std::string_view name) const {
  const Object& members = object("the value");
  const auto found = std::lower_bound(members.begin(), members.end(), name,
                                      [](const Member& member, std::string_view wanted) { return member.name < wanted; });
  return found != members.end() && found->name == name ? &found->value : nullptr;
}

const Value& Value::at(const char* name) const {
  if (const Value* found = find(name)) return *found;
  throw Error(std::string("the key ") + name + " is missing");
}

}  // namespace dq::json
