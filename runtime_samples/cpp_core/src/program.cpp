#include "program.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>

#include "utf8.h"

namespace dq {

int guarded(const std::string& name, const std::string& less_memory, const std::function<void()>& body) {
  std::string text;
  try {
    body();
    return 0;
  } catch (const std::bad_alloc&) {
    text = "out of memory; " + less_memory + " or a machine with more";
  } catch (const std::exception& error) {
    text = error.what();
  }
  std::fprintf(stderr, "%s: %s\n", name.c_str(), printable(text).c_str());
  return 2;
}

std::vector<std::string> words_of(int argc, char** argv, const OwnOptions& own) {
  std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  const bool help = std::find(words.begin(), words.end(), "--help") != words.end();
  if (own.take && !help) own.take(words);
  return words;
}

}  // namespace dq
