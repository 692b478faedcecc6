#include "options.h"

#include <algorithm>

#include "error.h"
#include "option_words.h"

namespace dq {
namespace {

bool take_flag(std::vector<std::string>& words, const char* name) {
  const auto rest = std::remove(words.begin(), words.end(), name);
  const bool found = rest != words.end();
  words.erase(rest, words.end());
  return found;
}

std::optional<std::string> take_value(std::vector<std::string>& words, const std::string& name) {
  const auto at = std::find(words.begin(), words.end(), name);
  if (at == words.end()) return std::nullopt;
  if (at + 1 == words.end() || (at + 1)->empty()) throw Error(name + " needs a value" + see_help);
  const std::string value = *(at + 1);
  words.erase(at, at + 2);
  if (std::find(words.begin(), words.end(), name) != words.end()) throw Error(name + " is given twice; give it once");
  return value;
}

}  // namespace

const char* const own_help =
    "\nOf this program:\n\n"
    "  (none of these)          ONNX Runtime's CPU kernels execute model/, as it is written: answers, no speed of an NPU\n"
    "  --soc CHIP               execute the contexts in the bundle's folder CHIP on the NPU of this phone; with --emulator\n"
    "                           the chip that is emulated (default: SM8750)\n"
    "  --emulator               compile model/ and emulate the NPU, on x86-64; slow, and no times are written\n"
    "  --qnn-library FILE       libonnxruntime_providers_qnn.so, with libQnnHtp.so and the others beside it\n";

QnnOptions take_options(std::vector<std::string>& words) {
  QnnOptions options;
  const bool emulator = take_flag(words, "--emulator");
  const std::optional<std::string> soc = take_value(words, "--soc"), library = take_value(words, "--qnn-library");
  if (soc && find_chip(*soc) == nullptr) throw Error("--soc must be one of " + chip_names() + ", got '" + *soc + "'" + see_help);
  if (emulator || soc) {
    options.unit = emulator ? Unit::emulator : Unit::npu;
    options.chip = find_chip(soc.value_or("SM8750"));
    if (!library) {
      throw Error(std::string(emulator ? "--emulator" : "--soc") +
                  " needs --qnn-library, Qualcomm's libonnxruntime_providers_qnn.so with its libraries beside it" + see_help);
    }
    options.qnn_library = std::filesystem::absolute(*library);
  } else if (library) {
    throw Error("--qnn-library is for --emulator or --soc; give one of them, or leave it out" + see_help);
  }
  return options;
}

void take_threads(std::optional<std::size_t> threads, QnnOptions& options) {
  if (threads && options.unit != Unit::cpu) throw Error("--threads is of the CPU, which does not execute here; leave it out" + see_help);
  options.threads = threads;
}

}  // namespace dq
