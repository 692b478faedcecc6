#include "bundle.h"
#include "executorch_network.h"
#include "run.h"

int main(int argc, char** argv) {
  return dq::run_program("dq-run", argc, argv, [](const dq::Arguments& arguments) {
    const dq::Bundle bundle = dq::open_bundle(arguments, "executorch");
    dq::ExecutorchNetwork network(bundle);
    dq::run(arguments, bundle, network);
  });
}
