#pragma once

#include <vector>

#include "bundle.h"
#include "network.h"
#include "reference.h"

namespace dq {

/// network(x, k) of one seed: gathers the inputs of step k, executes, combines the two answers of guidance, and corrects.
class Denoiser {
 public:
  Denoiser(const Bundle& bundle, const Reference& reference, Network& network);

  /// f at the already scaled x, both (C, H, W), in step k of seed s.
  std::vector<float> operator()(const std::vector<float>& scaled_x, std::size_t k, std::size_t seed);

  /// Executes every method once, as the first seed would.
  void warm_up();

 private:
  /// What the network is given: scaled_x, with the correction's shift where there is one.
  std::vector<float> corrected(std::vector<float> scaled_x, std::size_t k) const;
  const std::vector<Input>& gather(const float* x, std::size_t k, std::size_t seed, const std::vector<Conditioning>& given);

  const Bundle& bundle_;
  const Reference& reference_;
  Network& network_;
  std::vector<Input> inputs_;
  std::vector<float> unconditional_;
};

}  // namespace dq
