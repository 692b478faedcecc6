#pragma once

#include <functional>
#include <string>

namespace dq {

/// Runs the body of a program; an exception becomes one line on stderr. Returns the exit code: 0, or 2. `less_memory` says what
/// helps where memory runs out.
int guarded(const std::string& name, const std::string& less_memory, const std::function<void()>& body);

}  // namespace dq
