#pragma once

#include <locale.h>
#if __has_include(<xlocale.h>)
#include <xlocale.h>  // macOS has uselocale here
#endif

#include <string>

namespace dq {

/// While one lives, strtod, printf and what stands on them read and write numbers with a point on this thread. A host such as
/// Java sets the locale of the person for the whole process, and in many of them strtod ends at the point of "0.5".
/// The streams of C++ would do it too, but libc++'s drop what a number has beyond 39 characters.
class NumbersWithPoint {
 public:
  NumbersWithPoint();
  ~NumbersWithPoint();
  NumbersWithPoint(const NumbersWithPoint&) = delete;
  NumbersWithPoint& operator=(const NumbersWithPoint&) = delete;

 private:
  locale_t before_;
};

/// For people: six digits at most, as "%g" writes them.
std::string in_short(double number);

}  // namespace dq
