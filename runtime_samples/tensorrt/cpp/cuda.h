#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>

namespace dq {

/// What helps where the device runs out of memory.
inline const std::string less_memory = "free GPU memory, or take --reload (dq_generate_trt: --low-memory)";

/// Throws Error with CUDA's own words and what to do, unless `code` is success.
void check(cudaError_t code, const char* what);

/// Memory on the device, never copied.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  explicit DeviceMemory(std::size_t bytes) { resize(bytes); }
  ~DeviceMemory() { release(); }
  DeviceMemory(DeviceMemory&& other) noexcept;
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  DeviceMemory& operator=(DeviceMemory&&) = delete;

  /// Gives the former memory back first: there may not be enough for both. Throws Error.
  void resize(std::size_t bytes);

  void* get() const { return address_; }
  std::size_t bytes() const { return bytes_; }

 private:
  void release() noexcept;

  void* address_ = nullptr;
  std::size_t bytes_ = 0;
};

/// A stream that does not wait for others.
class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t get() const { return stream_; }
  /// Waits for all that was queued. Throws Error.
  void synchronize() const;
  void upload(const DeviceMemory& to, const void* source, std::size_t bytes) const;
  void download(void* to, const DeviceMemory& source, std::size_t bytes) const;

 private:
  cudaStream_t stream_ = nullptr;
};

/// Work that was recorded from a stream, ready to launch.
class RecordedWork {
 public:
  RecordedWork() = default;
  ~RecordedWork() { release(); }
  RecordedWork(const RecordedWork&) = delete;
  RecordedWork& operator=(const RecordedWork&) = delete;

  explicit operator bool() const { return executable_ != nullptr; }

  /// Records what `enqueue` puts on the stream instead of executing it. Throws Error, also what `enqueue` throws; the
  /// stream is good for use again.
  template <typename Enqueue>
  void record(const Stream& stream, Enqueue enqueue) {
    begin(stream);
    try {
      enqueue();
    } catch (...) {
      abandon(stream);
      throw;
    }
    end(stream);
  }

  void launch(const Stream& stream) const;
  void release() noexcept;

 private:
  void begin(const Stream& stream);
  void abandon(const Stream& stream) noexcept;
  void end(const Stream& stream);

  cudaGraphExec_t executable_ = nullptr;
};

/// Name of GPU 0, e.g. "Orin". Throws Error.
std::string gpu_name();

/// Of the CUDA runtime, e.g. "12.6". Throws Error.
std::string cuda_version();

}  // namespace dq
