#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "json.h"

namespace dq {

/// Whether the name stays in the folder on every system.
bool stays_inside(const std::string& name);

/// The text `key` of an object, a place in the bundle's folder. Throws Error: it is outside.
std::string path_at(const json::Value& object, const char* key);

/// Letters, digits, and . _ - behind the first: what programs name methods and inputs with.
bool is_plain(const std::string& name);

/// SHA-256 by name.
using FileHashes = std::map<std::string, std::string>;

/// bundle.json's `files`. Throws Error: one is outside, a link, missing, or was changed after it was written.
FileHashes checked_files(const std::filesystem::path& folder, const json::Value& bundle);

/// Whether the name is one of the files, or a folder with one of them.
bool lists(const FileHashes& files, const std::string& name);

}  // namespace dq
