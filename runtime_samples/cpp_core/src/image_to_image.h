#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "bundle.h"
#include "json.h"

namespace dq {

/// Most pixels along a side.
inline constexpr std::int64_t largest_side = 16384;

/// One step that a run can begin at: x = signal * picture + noise * noise of variance 1.
struct Start {
  std::size_t call = 0;  // of the network, that the run begins with
  float signal = 1, noise = 0;
  std::optional<Table> table;  // of the remaining calls; none: the tail of the whole table
};

/// `image_to_image` of pipeline.json: the encoder of pictures (1, 3, height, width) in [-1, 1], and where a run can begin with one.
struct ImageToImage {
  std::string program;
  std::size_t height = 0, width = 0;
  std::vector<std::string> outputs;                  // mean, and deviation where a latent is drawn from both
  bool rounds_up = false;                            // where steps times strength is no whole number, the first step is the later one
  std::map<std::size_t, std::vector<Start>> starts;  // by step count one for each step, the noisiest first

  /// Throws Error.
  static ImageToImage from_json(const json::Value& json);
};

/// The first of `steps` that a run of this strength executes, in float64 as diffusers' pipelines reckon; `steps` if none is left.
std::size_t first_step(double strength, std::size_t steps, bool rounds_up);

/// Where a run of some strength begins.
struct Beginning {
  std::size_t step = 0, steps = 0;  // the first of so many
  Start start;
  Bundle rest;  // the bundle, with the network calls that are left
};

/// Of `strength` in (0, 1]. Throws Error: it leaves no step, or the starts are not those of
/// the bundle, which is at the step count that is wanted.
Beginning beginning_of(const ImageToImage& image, const Bundle& bundle, double strength);

}  // namespace dq
