#pragma once

#include <functional>
#include <string>
#include <vector>

#include "arguments.h"
#include "bundle.h"
#include "network.h"

namespace dq {

/// The bundle that the arguments name, at their step count and guidance. Throws Error.
Bundle open_bundle(const Arguments& arguments, const std::string& target);

/// The two rollouts of every seed, and the report. Throws Error; then no report was written.
void run(const Arguments& arguments, const Bundle& bundle, Network& network);

/// Options that only one program has.
struct OwnOptions {
  const char* help = "";                                      // printed behind what all programs have
  std::function<void(std::vector<std::string>& words)> take;  // removes them from the command line. Throws Error
};

/// Runs `body` with the parsed command line; prints help, or one line on stderr for an error. Returns the exit code.
int run_program(const char* name, int argc, char** argv, const std::function<void(const Arguments&)>& body,
                const OwnOptions& own = {});

}  // namespace dq
