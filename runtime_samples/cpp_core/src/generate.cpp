#include "generate.h"

#include <chrono>
#include <cstdio>

#include "drawing.h"
#include "machine.h"
#include "number_text.h"
#include "picture.h"
#include "pipeline.h"
#include "utf8.h"

namespace dq {

namespace {

/// The file of --image is read.
GenerateArguments with_picture(GenerateArguments arguments, const Bundle& bundle) {
  if (!arguments.image) return arguments;
  const ImageToImage image = image_to_image_of(Pipeline::load(bundle));
  arguments.picture = read_png(*arguments.image, image.height, image.width);
  return arguments;
}

/// "4 steps", or how many of them ran.
std::string steps_of(const Drawn& drawn) {
  const std::string all = std::to_string(drawn.steps) + " steps";
  return drawn.step == 0 ? all : std::to_string(drawn.steps - drawn.step) + " of " + all;
}

}  // namespace

std::string generate(const GenerateArguments& arguments, const Bundle& bundle, Programs& programs, const Warn& warn) {
  const auto started = std::chrono::steady_clock::now();
  const Drawn drawn = draw(with_picture(arguments, bundle), bundle, programs, warn);
  if (arguments.latents) {
    const Bytes bytes = safetensors_of({{"latents", &drawn.latents}});
    write_whole(*arguments.latents, bytes.data(), bytes.size(), "--latents");
  }
  write_png(arguments.out, drawn.picture);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  const std::optional<std::int64_t> memory = peak_memory();
  const NumbersWithPoint with_point;
  char line[300];
  std::snprintf(line, sizeof line, ": %zu x %zu, %s, guidance %g, seed %llu; %.1f s, of them %.1f s in the network; peak memory %lld MiB",
                drawn.picture.width, drawn.picture.height, steps_of(drawn).c_str(), static_cast<double>(bundle.guidance),
                static_cast<unsigned long long>(arguments.seed), seconds, drawn.seconds_of_network,
                static_cast<long long>(memory.value_or(0) >> 20));
  return arguments.out.string() + line;
}

int run_generate(const char* name, int argc, char** argv, const std::string& target, const OpenPrograms& open,
                 const OwnOptions& own) {
  return guarded(name, "use --low-memory", [&] {
    const GenerateArguments arguments = parse_generate_arguments(words_of(argc, argv, own));
    if (arguments.help) {
      std::fputs((generate_usage(name) + own.help).c_str(), stdout);
      return;
    }
    const Bundle bundle = Bundle::load(arguments.bundle, target).at(arguments.steps, arguments.guidance);
    const std::unique_ptr<Programs> programs = open(arguments, bundle);
    const auto warn = [&](const std::string& text) { std::fprintf(stderr, "%s: warning: %s\n", name, printable(text).c_str()); };
    std::printf("%s\n", printable(generate(arguments, bundle, *programs, warn)).c_str());
  });
}

}  // namespace dq
