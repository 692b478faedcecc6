#include "machine.h"

#include <sys/resource.h>
#include <sys/utsname.h>

#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <thread>

#ifdef __ANDROID__
#include <sys/system_properties.h>
#endif

namespace dq {
namespace {

/// Boards with a device tree say their model there, with a zero byte at the end; empty where there is none.
std::string board() {
  std::ifstream file("/proc/device-tree/model");
  std::string model;
  std::getline(file, model, '\0');
  return model;
}

std::string processor() {
  if (const std::string model = board(); !model.empty()) return model;
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
  utsname system{};
  return ::uname(&system) == 0 ? system.machine : "unknown processor";
}

#ifdef __ANDROID__
std::string property(const char* name) {
  char value[PROP_VALUE_MAX] = "";
  __system_property_get(name, value);
  return value;
}
#endif

}  // namespace

std::string device_name() {
#ifdef __ANDROID__
  return property("ro.product.manufacturer") + " " + property("ro.product.model") + ", " + property("ro.soc.model");
#else
  return processor() + ", " + std::to_string(std::thread::hardware_concurrency()) + " cores";
#endif
}

std::vector<std::pair<std::string, std::string>> system_versions() {
  utsname system{};
  const bool known = ::uname(&system) == 0;
  const std::string name =
      known ? std::string(system.sysname) + " " + system.release + " " + system.machine : std::string("unknown");
#ifdef __ANDROID__
  return {{"android", property("ro.build.version.release") + " " + property("ro.build.id")}, {"system", name}};
#else
  return {{"system", name}};
#endif
}

std::optional<std::int64_t> peak_memory() {
  // Where the system says it itself: getrusage's figure on Linux starts with the size of the parent process.
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    std::int64_t kilobytes = 0;
    if (std::sscanf(line.c_str(), "VmHWM: %" SCNd64, &kilobytes) == 1) return kilobytes * 1024;
  }
  rusage usage{};
  if (::getrusage(RUSAGE_SELF, &usage) != 0) return std::nullopt;
#ifdef __APPLE__
  return static_cast<std::int64_t>(usage.ru_maxrss);
#else
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
#endif
}

}  // namespace dq
