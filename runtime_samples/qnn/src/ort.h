#pragma once

// ONNX Runtime's C API with owners and exceptions. The C++ API is one header more, which not everybody has who has the library.

#include <onnxruntime_c_api.h>

#include <memory>
#include <string>

namespace dq::ort {

/// The library's functions. Throws Error: it is too old.
const OrtApi& api();

/// Of the library, e.g. "1.32.0".
std::string version();

struct Release {
  void operator()(OrtEnv* object) const { api().ReleaseEnv(object); }
  void operator()(OrtMemoryInfo* object) const { api().ReleaseMemoryInfo(object); }
  void operator()(OrtSession* object) const { api().ReleaseSession(object); }
  void operator()(OrtSessionOptions* object) const { api().ReleaseSessionOptions(object); }
  void operator()(OrtTypeInfo* object) const { api().ReleaseTypeInfo(object); }
  void operator()(OrtValue* object) const { api().ReleaseValue(object); }
};

template <typename T>
using Owner = std::unique_ptr<T, Release>;

/// Nothing if `status` is null. Throws Error: "ONNX Runtime cannot WHAT: reason", with the reason in its log, then `remedy`.
void check(OrtStatus* status, const std::string& what, const std::string& remedy);

/// The environment, whose log is kept for `check` and stays off stderr.
Owner<OrtEnv> make_environment();

}  // namespace dq::ort
