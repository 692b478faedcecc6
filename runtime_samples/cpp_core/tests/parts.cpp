// dq-parts PART ARGUMENTS...: parts of `generate` by themselves, for tests that compare them with what they reproduce.
//   randn SEED SIZE...   successive draws from one generator, float32, to stdout
//   tokens clip|t5 FOLDER   a line with a JSON text -> a line with the ids of its tokens
//   begin up|down        a line with a step count and a strength -> the first step that runs
//   plain                a line with a JSON text -> "plain", or "refused" where it weights words or names a textual inversion

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "error.h"
#include "image_to_image.h"
#include "json.h"
#include "prompt.h"
#include "torch_random.h"

namespace {

void randn(const std::vector<std::string>& words) {
  dq::TorchGenerator generator(std::strtoull(words.at(0).c_str(), nullptr, 10));
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::vector<float> numbers = generator.randn(std::strtoull(words[i].c_str(), nullptr, 10));
    std::fwrite(numbers.data(), sizeof(float), numbers.size(), stdout);
  }
}

void tokenize(const dq::Tokenizer& tokenizer) {
  for (std::string line; std::getline(std::cin, line);) {
    const char* separator = "";
    for (const std::int64_t id : tokenizer.ids(dq::json::parse(line).text("the line"))) {
      std::printf("%s%lld", separator, static_cast<long long>(id));
      separator = " ";
    }
    std::printf("\n");
  }
}

void plain() {
  for (std::string line; std::getline(std::cin, line);) {
    const std::string text = dq::json::parse(line).text("the line");
    try {
      dq::check_prompt("--prompt", text);
      std::puts("plain");
    } catch (const dq::Error&) {
      std::puts("refused");
    }
  }
}

void begin(const std::string& rounds) {
  double strength = 0;
  for (std::size_t steps = 0; std::cin >> steps >> strength;) std::printf("%zu\n", dq::first_step(strength, steps, rounds == "up"));
}

void run(const std::string& part, const std::vector<std::string>& words) {
  if (part == "randn") return randn(words);
  if (part == "plain") return plain();
  if (part == "begin") return begin(words.at(0));
  if (part == "tokens") return tokenize(*dq::read_tokenizer(words.at(1), words.at(0)));
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
