#include "messages.h"

#include <new>

namespace dq {

void Messages::log(Severity severity, const char* text) noexcept {
  if (severity > Severity::kERROR) return;
  try {
    error_.assign(text);
  } catch (const std::bad_alloc&) {
    error_.clear();
  }
}

std::string Messages::last() const { return error_.empty() ? "" : "; TensorRT says: " + error_.substr(0, 300); }

}  // namespace dq
