#include "run.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <system_error>

#include "denoiser.h"
#include "error.h"
#include "metrics.h"
#include "program.h"
#include "progress.h"
#include "reference.h"
#include "report.h"
#include "sampler.h"

namespace dq {
namespace {

using Clock = std::chrono::steady_clock;

std::size_t seeds_to_run(const Arguments& arguments, const Reference& reference) {
  const std::size_t seeds = arguments.seeds.value_or(reference.seeds);
  if (seeds > reference.seeds) {
    throw Error("--seeds must be 1-" + std::to_string(reference.seeds) + " (the held-out seeds of the bundle), got " +
                std::to_string(seeds) + "; change --seeds");
  }
  return seeds;
}

FloatTensor make_tensor(std::size_t rows, std::size_t seeds, const Bundle& bundle) {
  Shape shape = bundle.sample_shape();
  shape[0] = static_cast<std::int64_t>(seeds);
  shape.insert(shape.begin(), static_cast<std::int64_t>(rows));
  return {shape, std::vector<float>(count_elements(shape))};
}

/// The own rollout and the teacher-forced outputs of one seed after another.
class Run {
 public:
  Run(const Bundle& bundle, const Reference& reference, Network& network, std::size_t seeds, bool teacher_forced)
      : bundle_(bundle), reference_(reference), denoiser_(bundle, reference, network), seeds_(seeds),
        progress_(seeds * bundle.table.calls() * (teacher_forced ? 2 : 1)), times_(bundle.table.calls()) {
    measured_.latents = make_tensor(bundle.table.calls() + 1, seeds, bundle);
    if (teacher_forced) measured_.outputs_at_simulation = make_tensor(bundle.table.calls(), seeds, bundle);
  }

  Measured all_seeds() {
    denoiser_.warm_up();
    for (std::size_t seed = 0; seed < seeds_; ++seed) {
      own_rollout(seed);
      if (measured_.outputs_at_simulation) teacher_forced(seed);
    }
    for (const std::vector<double>& times : times_) measured_.step_ms.push_back(median(times));
    return std::move(measured_);
  }

 private:
  void own_rollout(std::size_t seed) {
    const float* start = reference_.at(reference_.start, 0, seed);
    const auto latents = rollout(
        bundle_.table, std::vector<float>(start, start + reference_.elements),
        [&](std::size_t k) { return reference_.at(*reference_.step_noise, k, seed); },
        [&](const std::vector<float>& x, std::size_t k) { return timed(x, k, seed); });
    for (std::size_t k = 0; k < latents.size(); ++k) store(measured_.latents, k, seed, latents[k]);
  }

  void teacher_forced(std::size_t seed) {
    for (std::size_t k = 0; k < bundle_.table.calls(); ++k) {
      const float* latent = reference_.at(reference_.simulation_latents, k, seed);
      store(*measured_.outputs_at_simulation, k, seed,
            timed(scaled(bundle_.table.input_scale[k], latent, reference_.elements), k, seed));
    }
  }

  std::vector<float> timed(const std::vector<float>& x, std::size_t k, std::size_t seed) {
    const Clock::time_point start = Clock::now();
    std::vector<float> output = denoiser_(x, k, seed);
    times_[k].push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    progress_.advance();
    return output;
  }

  void store(FloatTensor& tensor, std::size_t k, std::size_t seed, const std::vector<float>& values) {
    const std::size_t offset = (k * seeds_ + seed) * reference_.elements;
    std::copy(values.begin(), values.end(), tensor.values.begin() + static_cast<std::ptrdiff_t>(offset));
  }

  const Bundle& bundle_;
  const Reference& reference_;
  Denoiser denoiser_;
  std::size_t seeds_;
  Progress progress_;
  std::vector<std::vector<double>> times_;
  Measured measured_;
};

void make_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!std::filesystem::is_directory(folder, error)) {
    throw Error("cannot make the folder " + folder.string() + "; choose one that you may write to (--report)");
  }
}

}  // namespace

Bundle open_bundle(const Arguments& arguments, const std::string& target) {
  return Bundle::load(arguments.bundle, target).at(arguments.steps, arguments.guidance);
}

void run(const Arguments& arguments, const Bundle& bundle, Network& network) {
  const Reference reference = Reference::load(bundle);
  const std::size_t seeds = seeds_to_run(arguments, reference);
  make_folder(arguments.report);
  const Measured measured = Run(bundle, reference, network, seeds, arguments.teacher_forced).all_seeds();
  write_report(arguments.report, bundle, reference, network.runtime(), measured);
}

int run_program(const char* name, int argc, char** argv, const std::function<void(const Arguments&)>& body,
                const OwnOptions& own) {
  return guarded(name, "use fewer --seeds", [&] {
    const Arguments arguments = parse_arguments(words_of(argc, argv, own));
    if (arguments.help) std::fputs((usage(name) + own.help).c_str(), stdout);
    else body(arguments);
  });
}

}  // namespace dq
