#include "crash.h"

#include <unistd.h>

#include <csignal>
#include <initializer_list>

namespace dq {
namespace {

constexpr const char* reason =
    ": Qualcomm's library crashed; contexts of several step groups (--soc) load on a phone only, elsewhere take --emulator; on a phone take the "
    "plugin and QAIRT of the version that wrote the contexts\n";

std::string crash_line;  // written before anything crashes

/// Only what a signal handler may do.
void say_and_end(int) {
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, crash_line.data(), crash_line.size());
  ::_exit(2);
}

}  // namespace

void say_crashes(const std::string& program) {
  crash_line = program + reason;
  for (const int number : {SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE}) std::signal(number, &say_and_end);
}

}  // namespace dq
