#pragma once

#include <functional>
#include <string>
#include <vector>

namespace dq {

/// Options that only one program has.
struct OwnOptions {
  const char* help = "";                                      // printed behind what all programs have
  std::function<void(std::vector<std::string>& words)> take;  // removes them from the command line. Throws Error
};

/// Runs the body of a program; an exception becomes one line on stderr. Returns the exit code: 0, or 2. `less_memory` says what
/// helps where memory runs out.
int guarded(const std::string& name, const std::string& less_memory, const std::function<void()>& body);

/// The command line without `own`, whose options are taken out, unless help is asked for. Throws Error.
std::vector<std::string> words_of(int argc, char** argv, const OwnOptions& own);

}  // namespace dq
