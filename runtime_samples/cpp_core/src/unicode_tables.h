#pragma once

#include <cstddef>
#include <cstdint>

namespace dq::unicode {

/// Written by scripts/unicode_tables.py, which says what the numbers are; a negative one is its two's complement.
struct Table {
  const std::uint32_t* numbers;
  std::size_t size;
};

extern const Table extends, prepends, controls;             // first, last
extern const Table letters, numbers, spaces;                // first, last
extern const Table lower, lower_long;                       // first, last, distance, step; code, two codes
extern const Table classes;                                 // first, last, class
extern const Table singletons, pairs, excluded;             // code, one code; code, two codes; code

}  // namespace dq::unicode
