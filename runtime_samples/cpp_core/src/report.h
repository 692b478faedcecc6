#pragma once

#include <filesystem>
#include <limits>
#include <optional>
#include <vector>

#include "bundle.h"
#include "network.h"
#include "reference.h"

namespace dq {

/// What a run left behind, S seeds that ran (perhaps fewer than the reference has) and N steps.
struct Measured {
  FloatTensor latents;                               // (N+1, S, C, H, W)
  std::optional<FloatTensor> outputs_at_simulation;  // (N, S, C, H, W)
  std::vector<double> step_ms;                       // N, NaN: not measured
};

/// Writes report.safetensors and then report.json into the folder, which exists. Throws Error if it cannot.
void write_report(const std::filesystem::path& folder, const Bundle& bundle, const Reference& reference,
                  const Runtime& runtime, const Measured& measured);

}  // namespace dq
