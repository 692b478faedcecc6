#pragma once

// What ExecuTorch leaves to its user and its wheel ships no headers for. Only executorch_network.cpp includes this.

#include <executorch/runtime/core/data_loader.h>
#include <executorch/runtime/core/memory_allocator.h>
#include <executorch/runtime/platform/platform.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "error.h"
#include "mapped_file.h"

namespace dq {

namespace et = executorch::runtime;

/// The runtime logs the reason of a failure and returns a number. Logs stay off stderr, the last reason goes into our line.
class Log {
 public:
  static void install() {
    // The wheel has set a log of its own, and warns on stderr that ours takes its place.
    const int kept = ::dup(STDERR_FILENO), nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (kept >= 0 && nowhere >= 0) ::dup2(nowhere, STDERR_FILENO);
    et::register_pal(et::PalImpl::create(&Log::emit, "dq-run"));
    if (kept >= 0) ::dup2(kept, STDERR_FILENO);
    for (const int file : {kept, nowhere}) {
      if (file >= 0) ::close(file);
    }
  }

  [[noreturn]] static void fail(const std::string& what, et::Error error) {
    const std::lock_guard<std::mutex> lock(mutex);
    throw Error("ExecuTorch cannot " + what + ": " + et::to_string(error) + (reason.empty() ? "" : ", " + reason) +
                export_again);
  }

 private:
  static void emit(et_timestamp_t, et_pal_log_level_t level, const char*, const char*, std::size_t, const char* message,
                   std::size_t length) {
    if (level != kError && level != kFatal) return;
    const std::lock_guard<std::mutex> lock(mutex);
    reason.assign(message, length);
  }

  inline static std::mutex mutex;  // a delegate's threads log too
  inline static std::string reason;
};

/// Gives the runtime the mapped file; nothing is copied.
class MappedLoader final : public et::DataLoader {
 public:
  explicit MappedLoader(const std::filesystem::path& path) : file_(path) {}

  et::Result<et::FreeableBuffer> load(std::size_t offset, std::size_t size, const SegmentInfo&) const override {
    if (!holds(offset, size)) return et::Error::InvalidProgram;
    return et::FreeableBuffer(file_.data() + offset, size, nullptr);
  }

  et::Error load_into(std::size_t offset, std::size_t size, const SegmentInfo&, void* buffer) const override {
    if (!holds(offset, size)) return et::Error::InvalidProgram;
    std::memcpy(buffer, file_.data() + offset, size);
    return et::Error::Ok;
  }

  et::Result<std::size_t> size() const override { return file_.size(); }

 private:
  bool holds(std::size_t offset, std::size_t size) const {
    return offset <= file_.size() && size <= file_.size() - offset;
  }

  MappedFile file_;
};

/// Grows as a method asks for more: how much it needs is not written in the program.
class GrowingAllocator final : public et::MemoryAllocator {
 public:
  GrowingAllocator() : MemoryAllocator(0, nullptr) {}
  GrowingAllocator(const GrowingAllocator&) = delete;
  GrowingAllocator& operator=(const GrowingAllocator&) = delete;
  ~GrowingAllocator() override { release(); }

  void* allocate(std::size_t size, std::size_t alignment) override {
    const auto aligned = std::align_val_t(alignment);
    void* block = ::operator new(size, aligned, std::nothrow);
    if (block != nullptr) blocks_.push_back({block, aligned});
    return block;
  }

  void reset() override { release(); }

 private:
  struct Block {
    void* data;
    std::align_val_t alignment;
  };

  void release() {
    for (const Block& block : blocks_) ::operator delete(block.data, block.alignment);
    blocks_.clear();
  }

  std::vector<Block> blocks_;
};

template <typename T>
T take(et::Result<T> result, const std::string& what) {
  if (!result.ok()) Log::fail(what, result.error());
  return std::move(result.get());
}

}  // namespace dq
