#include "crash.h"

#include <unistd.h>

#include <csignal>
#include <cstring>
#include <initializer_list>

namespace dq {
namespace {

constexpr const char* crash_line =
    "dq-run: Qualcomm's library crashed; contexts (--soc) load on a phone only, elsewhere take --emulator; on a phone take the "
    "plugin and QAIRT of the version that wrote the contexts\n";

/// Only what a signal handler may do.
void say_and_end(int) {
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, crash_line, std::strlen(crash_line));
  ::_exit(2);
}

}  // namespace

void say_crashes() {
  for (const int number : {SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE}) std::signal(number, &say_and_end);
}

}  // namespace dq
