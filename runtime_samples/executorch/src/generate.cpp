#include "generate.h"

#include "executorch_programs.h"

int main(int argc, char** argv) {
  return dq::run_generate("dq-generate", argc, argv, "executorch", [](const dq::GenerateArguments& arguments, const dq::Bundle&) {
    return std::make_unique<dq::ExecutorchPrograms>(arguments.threads);
  });
}
