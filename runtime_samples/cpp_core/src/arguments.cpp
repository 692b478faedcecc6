#include "arguments.h"

#include <algorithm>

#include "error.h"
#include "option_words.h"

namespace dq {

Arguments parse_arguments(const std::vector<std::string>& words) {
  Arguments arguments;
  if (std::find(words.begin(), words.end(), "--help") != words.end()) {
    arguments.help = true;
    return arguments;
  }
  const OptionWords given(words, {{"--bundle", "--report", "--seeds", "--steps", "--guidance", "--teacher-forced"}, {}, {}});
  arguments.bundle = given.required("--bundle", "a folder");
  arguments.report = given.required("--report", "a folder");
  arguments.seeds = given.count("--seeds");
  arguments.steps = given.count("--steps");
  arguments.guidance = given.number("--guidance");
  if (given.has("--teacher-forced")) {
    const std::string text = given.text("--teacher-forced");
    if (text != "on" && text != "off") throw Error("--teacher-forced must be on or off, got '" + text + "'" + see_help);
    arguments.teacher_forced = text == "on";
  }
  return arguments;
}

std::string usage(const std::string& program) {
  return "usage: " + program +
         " --bundle FOLDER --report FOLDER [--seeds N] [--steps N] [--guidance W] [--teacher-forced on|off]\n\n"
         "Runs the sampler of an exported bundle and writes report.json and report.safetensors.\n\n"
         "  --bundle FOLDER          what `dq-toolchain export` wrote\n"
         "  --report FOLDER          where the report goes; made if need be\n"
         "  --seeds N                only the first N held-out seeds (default: all); with fewer than 10 validate\n"
         "                           never says pass, at best \"not decided\"\n"
         "  --steps N                of the step counts that the bundle holds (default: the calibrated one)\n"
         "  --guidance W             of its guidance scales (default: the calibrated one)\n"
         "  --teacher-forced on|off  off leaves out the half of the run that measures conformance (default: on)\n\n"
         "Exit codes: 0 the report was written, 2 bad input or a runtime that refuses.\n";
}

}  // namespace dq
