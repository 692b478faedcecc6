#pragma once

#include <functional>

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
  std::size_t step = 0, steps = 0;  // the first of so many
};

/// Told how far a drawing is, in calls of the network: 0 of all while prompts are read and programs opened, each call when it is
/// done, all of them before the decoder. What it throws ends the drawing and goes to the caller: so a drawing is stopped.
using OnProgress = std::function<void(std::size_t done, std::size_t total)>;

/// Prompt in, pixels out: text encoders, the sampler from the seed's noise, decoder. `bundle` is at the step count and guidance that
/// are wanted; of the arguments it takes prompts, label, seed, low_memory, and picture with strength. Throws Error, and what
/// `on_progress` throws.
Drawn draw(const GenerateArguments& arguments, const Bundle& bundle, Programs& programs, const Warn& warn,
           const OnProgress& on_progress = [](std::size_t, std::size_t) {});

}  // namespace dq
