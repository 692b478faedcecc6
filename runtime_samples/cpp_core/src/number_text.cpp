#include "number_text.h"

#include <cstdio>

namespace dq {
namespace {

locale_t plain_locale() {
  static const locale_t plain = ::newlocale(LC_ALL_MASK, "C", nullptr);
  return plain;
}

}  // namespace

NumbersWithPoint::NumbersWithPoint() : before_(::uselocale(plain_locale())) {}

NumbersWithPoint::~NumbersWithPoint() { ::uselocale(before_); }

std::string in_short(double number) {
  const NumbersWithPoint with_point;
  char text[40];
  std::snprintf(text, sizeof text, "%g", number);
  return text;
}

}  // namespace dq
