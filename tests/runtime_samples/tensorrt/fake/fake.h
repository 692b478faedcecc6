// Between the two fakes: work on a stream, memory, and what they object to.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "cuda_runtime_api.h"

namespace fake {

using Work = std::function<void()>;

/// Ends the process with exit code 70 and `text` unless `good`.
void require(bool good, const std::string& text);
/// All bytes are allocated, in one piece.
void require_memory(const void* address, std::size_t bytes);
/// Queues work, or records it.
void submit(cudaStream_t stream, Work work);
bool is_capturing();
/// Appends a line to the file that FAKE_LOG names.
void log(const std::string& event);
/// A number from the environment.
long setting(const char* name, long otherwise);

}  // namespace fake
