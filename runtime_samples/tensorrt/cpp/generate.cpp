// dq_generate_trt --bundle FOLDER --prompt TEXT --out PICTURE.png ... [--no-cuda-graphs]

#include "generate.h"

#include <algorithm>

#include "error.h"
#include "option_words.h"
#include "tensorrt_programs.h"

namespace {

const char* const own_help =
    "\nOf this program:\n\n"
    "  --low-memory             also keeps one engine of the network in memory, and loads the next when its step group comes\n"
    "  --no-cuda-graphs         enqueue every execution anew\n";

}  // namespace

int main(int argc, char** argv) {
  dq::TensorRTOptions options;
  const dq::OwnOptions own{own_help, [&](std::vector<std::string>& words) {
    const auto rest = std::remove(words.begin(), words.end(), "--no-cuda-graphs");
    options.graphs = rest == words.end();
    words.erase(rest, words.end());
  }};
  const auto open = [&](const dq::GenerateArguments& arguments, const dq::Bundle& bundle) {
    if (arguments.threads) throw dq::Error("--threads cannot be set for TensorRT, it runs on the GPU; leave it out" + dq::see_help);
    options.reload = arguments.low_memory;
    return std::make_unique<dq::TensorRTPrograms>(bundle, options);
  };
  return dq::run_generate("dq_generate_trt", argc, argv, "tensorrt", open, own);
}
