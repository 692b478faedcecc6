#pragma once

#include <memory>

#include "generate_arguments.h"
#include "programs.h"

namespace dq::android {

/// What executes the bundles of this library. A build links one source file with these two.

/// The target that a bundle must be for, as `dq-toolchain export --target` takes it.
extern const char* const runtime_target;

/// Throws Error.
std::unique_ptr<Programs> open_programs(const GenerateArguments& arguments, const Bundle& bundle);

}  // namespace dq::android
