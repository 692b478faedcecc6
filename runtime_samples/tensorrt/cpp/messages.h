#pragma once

#include <NvInfer.h>

#include <string>

namespace dq {

/// Keeps what TensorRT says last, for the one line that reports an error.
class Messages : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* text) noexcept override;

  /// "; TensorRT says: ...", or nothing.
  std::string last() const;

 private:
  std::string error_;
};

}  // namespace dq
