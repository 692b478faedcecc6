#pragma once

#include <functional>
#include <string>
#include <vector>

#include "arguments.h"
#include "bundle.h"
#include "network.h"
#include "program.h"

namespace dq {

/// The bundle that the arguments name, at their step count and guidance. Throws Error.
Bundle open_bundle(const Arguments& arguments, const std::string& target);

/// The two rollouts of every seed, and the report. Throws Error; then no report was written.
void run(const Arguments& arguments, const Bundle& bundle, Network& network);

/// Runs `body` with the parsed command line; prints help, or one line on stderr for an error. Returns the exit code.
int run_program(const char* name, int argc, char** argv, const std::function<void(const Arguments&)>& body,
                const OwnOptions& own = {});

}  // namespace dq
