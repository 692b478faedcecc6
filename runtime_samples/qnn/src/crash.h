#pragma once

namespace dq {

/// From now on a crash is one line and exit code 2: Qualcomm's libraries end the process where they should refuse, for example on
/// x86-64 when they are given a context.
void say_crashes();

}  // namespace dq
