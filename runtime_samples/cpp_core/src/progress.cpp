#include "progress.h"

#include <unistd.h>

#include <cstdio>

namespace dq {
namespace {

constexpr const char* clear_line = "\r\x1b[K";

bool is_terminal() { return ::isatty(STDERR_FILENO) == 1; }

}  // namespace

Progress::Progress(std::size_t total, const char* unit) : shown_(is_terminal()), total_(total), unit_(unit) {}

Progress::~Progress() {
  if (shown_) std::fputs(clear_line, stderr);
}

void Progress::advance() {
  ++done_;
  const Clock::time_point now = Clock::now();
  if (!shown_ || now - drawn_ < std::chrono::milliseconds(200)) return;  // drawing must not slow the run down
  drawn_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double left = seconds / static_cast<double>(done_) * static_cast<double>(total_ - done_);
  std::fprintf(stderr, "%s%zu of %zu %s, %d:%02d left", clear_line, done_, total_, unit_, static_cast<int>(left) / 60,
               static_cast<int>(left) % 60);
}

Stage::Stage(const char* what) {
  if (is_terminal()) std::fprintf(stderr, "%s%s", clear_line, what);
}

Stage::~Stage() {
  if (is_terminal()) std::fputs(clear_line, stderr);
}

}  // namespace dq
