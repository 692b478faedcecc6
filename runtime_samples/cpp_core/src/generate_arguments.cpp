#include "generate_arguments.h"

#include <algorithm>

#include "error.h"
#include "option_words.h"
#include "prompt.h"

namespace dq {

GenerateArguments parse_generate_arguments(const std::vector<std::string>& words) {
  GenerateArguments arguments;
  if (std::find(words.begin(), words.end(), "--help") != words.end()) {
    arguments.help = true;
    return arguments;
  }
  const OptionWords given(words, {{"--bundle", "--prompt", "--negative-prompt", "--label", "--seed", "--steps", "--guidance", "--threads", "--out",
                                   "--latents", "--image", "--strength"},
                                  {"--low-memory"},
                                  {"--prompt", "--negative-prompt"}});
  arguments.bundle = given.required("--bundle", "a folder");
  arguments.out = given.required("--out", "a name for the picture, such as picture.png");
  if (given.has("--prompt")) arguments.prompt = given.text("--prompt");
  if (given.has("--label")) arguments.label = static_cast<std::int64_t>(*given.count("--label", 0));
  arguments.negative_prompt = given.text("--negative-prompt");
  if (given.has("--latents")) arguments.latents = given.text("--latents");
  if (given.has("--image")) arguments.image = given.text("--image");
  if (given.has("--strength")) arguments.strength = *given.number("--strength");
  arguments.seed = given.seed("--seed").value_or(0);
  arguments.steps = given.count("--steps");
  arguments.guidance = given.number("--guidance");
  arguments.threads = given.count("--threads");
  arguments.low_memory = given.has("--low-memory");
  if (arguments.out.extension() != ".png") throw Error("--out must end with .png, got '" + arguments.out.string() + "'; change --out");
  if (given.has("--strength") && !arguments.image) {
    throw Error("--strength says how much of a picture is changed, and there is none; give --image, or leave it out");
  }
  if (!(arguments.strength > 0 && arguments.strength <= 1)) {
    throw Error("--strength must be above 0 and at most 1, got " + given.text("--strength") + "; change it");
  }
  check_prompt("--prompt", arguments.prompt.value_or(""));
  check_prompt("--negative-prompt", arguments.negative_prompt);
  return arguments;
}

std::string generate_usage(const std::string& program) {
  return "usage: " + program +
         " --bundle FOLDER --prompt TEXT --out PICTURE.png [--negative-prompt TEXT] [--label N] [--seed N]\n"
         "       [--steps N] [--guidance W] [--threads N] [--low-memory] [--latents FILE]\n"
         "       [--image PICTURE.png [--strength S]]\n\n"
         "Draws the picture that a prompt describes, with an exported pipeline.\n\n"
         "  --bundle FOLDER         what `dq-toolchain export` wrote of a whole pipeline\n"
         "  --prompt TEXT           what to draw; what is too long for the text encoder is left out, and said\n"
         "  --out PICTURE.png       where the picture goes\n"
         "  --negative-prompt TEXT  what not to draw; needs guidance (default: nothing)\n"
         "  --label N               the class to draw, of a model that takes one in the place of a prompt\n"
         "  --image PICTURE.png     begins with this picture, of the model's size, in the place of noise\n"
         "  --strength S            how much of it is changed, above 0 to 1 (default: 0.8)\n"
         "  --seed N                of the noise: the same seed gives the same picture (default: 0)\n"
         "  --steps N               of the step counts that the bundle holds (default: the calibrated one)\n"
         "  --guidance W            of its guidance scales (default: the calibrated one)\n"
         "  --threads N             processor cores to use (default: the runtime's choice)\n"
         "  --low-memory            loads text encoders, network and decoder one after the other\n"
         "  --latents FILE          writes the finished latents, too, as safetensors\n\n"
         "Examples:\n"
         "  " + program + " --bundle bundle --prompt \"a red ball on grass\" --out picture.png\n"
         "  " + program + " --bundle bundle --prompt \"a red ball on grass\" --negative-prompt blurry --seed 7 --out picture.png\n"
         "  " + program + " --bundle bundle --prompt \"a blue ball on grass\" --image picture.png --strength 0.6 --out blue.png\n\n"
         "Exit codes: 0 the picture was written, 2 bad input or a runtime that refuses.\n";
}

}  // namespace dq
