// dq-replay RECORDING --bundle FOLDER --report FOLDER ...: the whole program with a recorded network in place of a runtime.

#include <cstdio>

#include "bundle.h"
#include "replay_network.h"
#include "run.h"

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("dq-replay: a recording must come first; name a replay.safetensors\n", stderr);
    return 2;
  }
  const char* recording = argv[1];
  return dq::run_program("dq-replay", argc - 1, argv + 1, [&](const dq::Arguments& arguments) {
    const dq::Bundle bundle = dq::open_bundle(arguments, dq::any_target);
    dq::ReplayNetwork network(recording, bundle);
    dq::run(arguments, bundle, network);
    if (!arguments.seeds && arguments.teacher_forced) network.expect_end();
  });
}
