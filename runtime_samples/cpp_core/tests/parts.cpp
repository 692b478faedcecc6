// dq-parts PART ARGUMENTS...: parts of `generate` by themselves, for tests that compare them with what they reproduce.
//   randn SEED SIZE...   successive draws from one generator, float32, to stdout

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "error.h"
#include "torch_random.h"

namespace {

void randn(const std::vector<std::string>& words) {
  dq::TorchGenerator generator(std::strtoull(words.at(0).c_str(), nullptr, 10));
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::vector<float> numbers = generator.randn(std::strtoull(words[i].c_str(), nullptr, 10));
    std::fwrite(numbers.data(), sizeof(float), numbers.size(), stdout);
  }
}

void run(const std::string& part, const std::vector<std::string>& words) {
  if (part == "randn") return randn(words);
  throw dq::Error("unknown part '" + part + "'");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> words(argv + 1, argv + argc);
    run(words.at(0), {words.begin() + 1, words.end()});
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dq-parts: %s\n", error.what());
    return 2;
  }
}
