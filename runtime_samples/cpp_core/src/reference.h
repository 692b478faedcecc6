#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bundle.h"
#include "safetensors.h"

namespace dq {

/// One conditioning input of all seeds: floats or integers, whichever the program takes.
struct Conditioning {
  std::vector<float> floats;
  std::vector<std::int64_t> integers;
};

/// What the held-out seeds start from and are compared with, S seeds and N steps.
struct Reference {
  std::size_t seeds = 0;
  std::size_t elements = 0;                    // C * H * W
  FloatTensor start;                           // (S, C, H, W)
  FloatTensor fp32_latents, simulation_latents;  // (N+1, S, C, H, W)
  std::optional<FloatTensor> step_noise;       // (N, S, C, H, W)
  // By input of the bundle; empty where the input is not conditioning. `uncond` is empty without guidance.
  std::vector<Conditioning> cond, uncond;

  /// The C * H * W numbers of seed s and row k of a tensor (rows, S, C, H, W), for start with k = 0.
  const float* at(const FloatTensor& tensor, std::size_t k, std::size_t s) const {
    return tensor.values.data() + (k * seeds + s) * elements;
  }

  /// Throws Error: the file is damaged, or shapes are not those of the bundle.
  static Reference load(const Bundle& bundle);
};

}  // namespace dq
