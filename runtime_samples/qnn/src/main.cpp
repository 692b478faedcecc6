// dq-run --bundle FOLDER --report FOLDER [--seeds N] [--steps N] [--guidance W] [--teacher-forced on|off]
//        [--soc CHIP] [--emulator] [--qnn-library FILE]

#include "bundle.h"
#include "crash.h"
#include "options.h"
#include "qnn_network.h"
#include "run.h"

int main(int argc, char** argv) {
  dq::QnnOptions options;
  const dq::OwnOptions own{dq::own_help, [&](std::vector<std::string>& words) { options = dq::take_options(words); }};
  const auto body = [&](const dq::Arguments& arguments) {
    const dq::Bundle bundle = dq::open_bundle(arguments, "qnn");
    if (options.unit != dq::Unit::cpu) dq::say_crashes("dq-run");
    const dq::QnnDevice device(options);
    dq::QnnNetwork network(bundle, device);
    dq::run(arguments, bundle, network);
  };
  return dq::run_program("dq-run", argc, argv, body, own);
}
