#include "made_of.h"

#include <set>

#include "error.h"
#include "files.h"

namespace dq {
namespace fs = std::filesystem;

namespace {

const std::string build = "; build it on this device with: python3 build_engines.py, in the bundle's folder";

/// With the slash at its end; nothing for a file of the bundle's own folder.
std::string folder_of(const std::string& file) { return file.substr(0, file.rfind('/') + 1); }

}  // namespace

std::string made_of(const std::string& name, const FileHashes& files) {
  const std::string graph = name + ".onnx";
  std::set<std::string> folders;
  for (const auto& [file, hash] : files) {
    if (file == folder_of(file) + graph) folders.insert(folder_of(file));
  }
  std::string lines;
  for (const auto& [file, hash] : files) {
    const std::string folder = folder_of(file);
    const bool own = file == folder + graph || file == folder + "weights.bin";
    if (own && folders.count(folder) > 0) lines += hash + "  " + file + "\n";
  }
  return lines;
}

void expect_own(const fs::path& plan, const std::string& name, const FileHashes& files) {
  if (!fs::exists(plan)) throw Error(plan.string() + " is missing" + build);
  const fs::path path = plan.parent_path() / (name + ".made_of");
  if (!fs::exists(path)) {
    throw Error("it is not known what " + plan.filename().string() + " was made of: " + path.string() + " is missing" + build +
                "; a bundle of version 0.1 has no such file, export it again");
  }
  const Bytes found = read_file(path);
  const std::string wanted = made_of(name, files);
  if (wanted.empty() || as_text(found) != wanted) {
    throw Error(plan.filename().string() + " was not made of the graph and weights of this bundle" + build);
  }
}

}  // namespace dq
