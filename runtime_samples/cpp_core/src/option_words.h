#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace dq {

/// What a program's command line may hold.
struct OptionNames {
  std::vector<std::string> with_value, alone;
  std::vector<std::string> may_be_empty;  // of those with a value
};

/// A command line by option; those without a value are empty.
class OptionWords {
 public:
  /// Throws Error: an option is unknown, given twice, or has no value.
  OptionWords(const std::vector<std::string>& words, const OptionNames& names);

  bool has(const std::string& name) const { return given_.count(name) != 0; }
  /// Throws Error: it is missing; `what` says what to give.
  const std::string& required(const std::string& name, const char* what) const;
  std::string text(const std::string& name) const { return has(name) ? given_.at(name) : ""; }

  /// From `least`; none if it is not there. Throws Error.
  std::optional<std::size_t> count(const std::string& name, std::size_t least = 1) const;
  /// Within a million; none if it is not there. Throws Error.
  std::optional<double> number(const std::string& name) const;
  /// 0 to 2^63 - 1; none if it is not there. Throws Error.
  std::optional<std::uint64_t> seed(const std::string& name) const;

 private:
  std::map<std::string, std::string> given_;
};

/// What stands behind errors of the command line.
inline const std::string see_help = "; see --help";

}  // namespace dq
