#pragma once

#include "generate_arguments.h"
#include "picture.h"
#include "programs.h"
#include "text_encoders.h"

namespace dq {

/// What came of a prompt.
struct Drawn {
  Picture picture;
  FloatTensor latents;           // (1, C, h, w), as the sampler leaves them
  double seconds_of_network = 0;
};

/// Prompt in, pixels out: text encoders, the sampler from the seed's noise, decoder. `bundle` is at the step count and guidance that
/// are wanted; of the arguments it takes prompts, label, seed and low_memory. Throws Error.
Drawn draw(const GenerateArguments& arguments, const Bundle& bundle, Programs& programs, const Warn& warn);

}  // namespace dq
