#pragma once

#include <chrono>
#include <cstddef>

namespace dq {

/// A line on stderr with the calls done and the time left; silent where stderr is no terminal.
class Progress {
 public:
  explicit Progress(std::size_t total, const char* unit = "calls");
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance();

 private:
  using Clock = std::chrono::steady_clock;

  const bool shown_;
  const std::size_t total_;
  const char* unit_;
  std::size_t done_ = 0;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point drawn_{};
};

/// A line on stderr with what is being done; silent where stderr is no terminal.
class Stage {
 public:
  explicit Stage(const char* what);
  ~Stage();
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;
};

}  // namespace dq
