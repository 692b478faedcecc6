#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>

#include "error.h"

namespace dq {

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat status {};
  void* mapped = MAP_FAILED;
  int reason = EINVAL;  // a folder, or nothing in it
  if (file >= 0 && ::fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0) {
    size_ = static_cast<std::size_t>(status.st_size);
    mapped = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
    if (mapped == MAP_FAILED) reason = errno;
  } else if (file < 0) {
    reason = errno;
  }
  if (file >= 0) ::close(file);  // the mapping stays
  if (mapped == MAP_FAILED) {
    throw Error("cannot read " + path.string() + ": " + std::generic_category().message(reason) + export_again);
  }
  data_ = static_cast<const std::byte*>(mapped);
}

MappedFile::~MappedFile() { ::munmap(const_cast<std::byte*>(data_), size_); }

}  // namespace dq
