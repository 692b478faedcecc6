#pragma once

#include <string>

namespace dq {

/// From now on a crash is one line, of this program, and exit code 2: Qualcomm's libraries end the process where they should refuse, for example on
/// x86-64 when they are given the context of several step groups.
void say_crashes(const std::string& program);

}  // namespace dq
