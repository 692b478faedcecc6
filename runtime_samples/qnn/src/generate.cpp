// dq-generate --bundle FOLDER --prompt TEXT --out PICTURE.png ... [--soc CHIP] [--emulator] [--qnn-library FILE]

#include "generate.h"

#include "crash.h"
#include "options.h"
#include "qnn_programs.h"

int main(int argc, char** argv) {
  dq::QnnOptions options;
  const dq::OwnOptions own{dq::own_help, [&](std::vector<std::string>& words) { options = dq::take_options(words); }};
  const auto open = [&](const dq::GenerateArguments& arguments, const dq::Bundle& bundle) {
    dq::take_threads(arguments.threads, options);
    if (options.unit != dq::Unit::cpu) dq::say_crashes("dq-generate");
    return std::make_unique<dq::QnnPrograms>(bundle, options);
  };
  return dq::run_generate("dq-generate", argc, argv, "qnn", open, own);
}
