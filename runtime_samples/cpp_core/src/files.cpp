#include "files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>

#include "error.h"

namespace dq {
namespace fs = std::filesystem;

namespace {

[[noreturn]] void cannot_write(const fs::path& path, int reason, const std::string& option) {
  throw Error("cannot write " + path.string() + ": " + std::generic_category().message(reason) +
              "; choose a folder with space that you may write to (" + option + ")");
}

}  // namespace

Bytes read_file(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) throw Error(path.string() + " does not exist");
  if (!fs::is_regular_file(path, error)) throw Error(path.string() + " is not a file");
  const std::uintmax_t size = fs::file_size(path, error);
  if (error) throw Error("cannot read " + path.string() + ": " + error.message());
  Bytes bytes(static_cast<std::size_t>(size));
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file) throw Error("cannot read " + path.string());
  return bytes;
}

void write_whole(const fs::path& path, const void* data, std::size_t size, const std::string& option) {
  const fs::path temporary =
      path.parent_path() / ("." + path.filename().string() + "." + std::to_string(::getpid()) + ".tmp");
  const int file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) cannot_write(path, errno, option);
  int reason = 0;
  const auto* bytes = static_cast<const char*>(data);
  while (size > 0 && reason == 0) {
    const ssize_t written = ::write(file, bytes, size);
    if (written >= 0) {
      bytes += written;
      size -= static_cast<std::size_t>(written);
    } else if (errno != EINTR) {
      reason = errno;
    }
  }
  if (reason == 0 && ::fsync(file) != 0) reason = errno;
  if (::close(file) != 0 && reason == 0) reason = errno;
  if (reason == 0 && ::rename(temporary.c_str(), path.c_str()) != 0) reason = errno;
  if (reason != 0) {
    ::unlink(temporary.c_str());
    cannot_write(path, reason, option);
  }
}

}  // namespace dq
