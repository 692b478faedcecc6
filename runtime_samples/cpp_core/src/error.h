#pragma once

#include <stdexcept>
#include <string>

namespace dq {

/// Everything that is refused: the text says what was got, what is allowed and what to do.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What to do about a bundle that is damaged.
inline const std::string export_again = "; run `dq-toolchain export` again";

}  // namespace dq
