#include "ort.h"

#include <algorithm>
#include <mutex>
#include <vector>

#include "error.h"

namespace dq::ort {
namespace {

/// The first version with plugins that are given by path. A library hands out every version up to its own.
constexpr std::uint32_t needed_version = 22;
static_assert(ORT_API_VERSION >= needed_version, "these programs need the headers of ONNX Runtime 1.22 or later");
constexpr std::size_t most_text = 400, most_texts = 3;

/// Line ends and runs of spaces become one space: an error is one line.
std::string one_line(const std::string& text) {
  std::string line;
  for (const char c : text) {
    const bool space = c == ' ' || c == '\n' || c == '\r' || c == '\t';
    if (!space) line.push_back(c);
    else if (!line.empty() && line.back() != ' ') line.push_back(' ');
  }
  return line.substr(0, std::min(line.size(), most_text));
}

/// What was logged as an error since the last failure, each text once: the first ones say why, the others are its consequence.
class Log {
 public:
  static void write(void*, OrtLoggingLevel level, const char*, const char*, const char*, const char* message) {
    if (level < ORT_LOGGING_LEVEL_ERROR) return;
    const std::lock_guard<std::mutex> lock(mutex);
    const std::string text = one_line(message);
    if (texts.size() < most_texts && std::find(texts.begin(), texts.end(), text) == texts.end()) texts.push_back(text);
  }

  /// Those that `reason` does not say itself, and empties the log.
  static std::string take_beside(const std::string& reason) {
    const std::lock_guard<std::mutex> lock(mutex);
    std::string taken;
    for (const std::string& text : texts) {
      if (reason.find(text) == std::string::npos) taken += (taken.empty() ? "" : "; ") + text;
    }
    texts.clear();
    return taken;
  }

 private:
  inline static std::mutex mutex;  // a provider's threads log too
  inline static std::vector<std::string> texts;
};

}  // namespace

const OrtApi& api() {
  static const OrtApi* const found = OrtGetApiBase()->GetApi(needed_version);
  if (found == nullptr) throw Error("ONNX Runtime " + version() + " is too old, 1.22 or later is needed; install a later one");
  return *found;
}

std::string version() { return OrtGetApiBase()->GetVersionString(); }

void check(OrtStatus* status, const std::string& what, const std::string& remedy) {
  if (status == nullptr) return;
  const std::string reason = one_line(api().GetErrorMessage(status)), logged = Log::take_beside(reason);
  api().ReleaseStatus(status);
  throw Error("ONNX Runtime cannot " + what + ": " + reason + (logged.empty() ? "" : " (its log: " + logged + ")") + remedy);
}

Owner<OrtEnv> make_environment() {
  OrtEnv* environment = nullptr;
  check(api().CreateEnvWithCustomLogger(&Log::write, nullptr, ORT_LOGGING_LEVEL_ERROR, "dq", &environment), "start", "");
  return Owner<OrtEnv>(environment);
}

}  // namespace dq::ort
