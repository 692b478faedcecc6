#include "bundle_files.h"

#include <algorithm>

#include "error.h"
#include "sha256.h"

namespace dq {
namespace fs = std::filesystem;

namespace {

constexpr std::size_t longest_name = 100;

/// The file in the folder; a link is refused wherever it points, for files and for the folders on the way.
fs::path file_inside(const fs::path& folder, const std::string& name) {
  if (!stays_inside(name)) throw Error("files names a place outside the bundle: " + name);
  fs::path path = folder;
  for (const fs::path& part : fs::path(name)) {
    path /= part;
    std::error_code error;
    if (fs::is_symlink(fs::symlink_status(path, error))) throw Error(path.string() + " is a link, it must be a file of the bundle's own");
  }
  return path;
}

}  // namespace

std::string path_at(const json::Value& object, const char* key) {
  const std::string& path = object.text_at(key);
  if (!stays_inside(path)) throw Error(std::string(key) + " names a place outside the bundle: " + path);
  return path;
}

bool is_plain(const std::string& name) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  const auto allowed = [&](char c) { return letter(c) || (c >= '0' && c <= '9') || c == '.' || c == '-'; };
  return !name.empty() && name.size() <= longest_name && letter(name[0]) && std::all_of(name.begin(), name.end(), allowed);
}

bool stays_inside(const std::string& name) {
  if (name.find_first_of("\\:") != std::string::npos) return false;
  if (std::any_of(name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; })) return false;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    const std::string part = name.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    begin = end + 1;
  }
  return true;
}

FileHashes checked_files(const fs::path& folder, const json::Value& bundle) {
  FileHashes files;
  for (const json::Member& file : bundle.object_at("files")) {
    const std::string& wanted = file.value.text("files");
    if (sha256_of_file(file_inside(folder, file.name)) != wanted) {
      throw Error(file.name + " was changed after it was written (its SHA-256 differs from the one recorded)");
    }
    files.emplace(file.name, wanted);
  }
  return files;
}

bool lists(const FileHashes& files, const std::string& name) {
  return std::any_of(files.begin(), files.end(),
                     [&](const auto& file) { return file.first == name || file.first.rfind(name + "/", 0) == 0; });
}

}  // namespace dq
