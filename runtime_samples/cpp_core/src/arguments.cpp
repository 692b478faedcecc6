#include "arguments.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <map>

#include "error.h"

namespace dq {
namespace {

const std::string see_help = "; see --help";
constexpr const char* known[] = {"--bundle", "--report", "--seeds", "--steps", "--guidance", "--teacher-forced"};

std::size_t read_count(const std::string& name, const std::string& text) {
  const bool digits = !text.empty() && text.size() <= 9 && text.find_first_not_of("0123456789") == std::string::npos;
  const unsigned long count = digits ? std::strtoul(text.c_str(), nullptr, 10) : 0;
  if (count == 0) throw Error(name + " must be a number from 1, got '" + text + "'; change " + name);
  return count;
}

double read_guidance(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end != text.c_str() + text.size() || !(std::fabs(value) <= 1e6)) {
    throw Error("--guidance must be a number within a million, got '" + text + "'; change --guidance");
  }
  return value;
}

}  // namespace

Arguments parse_arguments(const std::vector<std::string>& words) {
  Arguments arguments;
  if (std::find(words.begin(), words.end(), "--help") != words.end()) {
    arguments.help = true;
    return arguments;
  }
  std::map<std::string, std::string> given;
  for (std::size_t i = 0; i < words.size(); i += 2) {
    const std::string& name = words[i];
    if (std::find(std::begin(known), std::end(known), name) == std::end(known)) {
      throw Error("unknown argument '" + name + "', allowed are --bundle, --report, --seeds, --steps, --guidance and --teacher-forced" +
                  see_help);
    }
    if (i + 1 == words.size() || words[i + 1].empty()) throw Error(name + " needs a value" + see_help);
    if (!given.emplace(name, words[i + 1]).second) throw Error(name + " is given twice; give it once");
  }
  for (const char* name : {"--bundle", "--report"}) {
    if (given.count(name) == 0) throw Error(std::string(name) + " is missing; give a folder" + see_help);
  }
  arguments.bundle = given["--bundle"];
  arguments.report = given["--report"];
  if (given.count("--seeds") != 0) arguments.seeds = read_count("--seeds", given["--seeds"]);
  if (given.count("--steps") != 0) arguments.steps = read_count("--steps", given["--steps"]);
  if (given.count("--guidance") != 0) arguments.guidance = read_guidance(given["--guidance"]);
  if (given.count("--teacher-forced") != 0) {
    const std::string& text = given["--teacher-forced"];
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
