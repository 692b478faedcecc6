#pragma once

#include <functional>
#include <memory>
#include <string>

#include "generate_arguments.h"
#include "program.h"
#include "programs.h"
#include "text_encoders.h"

namespace dq {

/// Prompt in, picture out: text encoders, the sampler from the seed's noise, decoder, PNG. Returns a line with what was done, for
/// the user; warnings go to `warn`. Throws Error; then no picture was written.
std::string generate(const GenerateArguments& arguments, const Bundle& bundle, Programs& programs,
                     const Warn& warn);

/// The programs of a bundle with the options of the command line.
using OpenPrograms = std::function<std::unique_ptr<Programs>(const GenerateArguments& arguments, const Bundle& bundle)>;

/// The whole program with a runtime; a `main` returns what it returns.
int run_generate(const char* name, int argc, char** argv, const std::string& target, const OpenPrograms& open,
                 const OwnOptions& own = {});

}  // namespace dq
