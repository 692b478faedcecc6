#include "report.h"

#include <string>
#include <system_error>

#include "error.h"
#include "files.h"
#include "json_writer.h"
#include "machine.h"
#include "metrics.h"
#include "sha256.h"

namespace dq {
namespace fs = std::filesystem;

namespace {

constexpr const char* json_file = "report.json";
constexpr const char* tensor_file = "report.safetensors";

std::size_t seeds_of(const Measured& measured) { return static_cast<std::size_t>(measured.latents.shape[1]); }

const float* latent(const Measured& measured, const Reference& reference, std::size_t k, std::size_t s) {
  return measured.latents.values.data() + (k * seeds_of(measured) + s) * reference.elements;
}

double error_after(std::size_t k, const Measured& measured, const Reference& reference, const FloatTensor& wanted) {
  std::vector<double> errors;
  for (std::size_t s = 0; s < seeds_of(measured); ++s) {
    const float* wanted_latent = reference.at(wanted, k + 1, s);
    errors.push_back(relative_error(latent(measured, reference, k + 1, s), wanted_latent, reference.elements));
  }
  return median(errors);
}

void write_figures(json::Writer& json, const Bundle& bundle, const Reference& reference, const Measured& measured) {
  const std::size_t calls = bundle.table.calls();
  json.key("per_step").begin_list();
  for (std::size_t k = 0; k < calls; ++k) {
    json.begin_object().key("step").value(static_cast<std::int64_t>(k));
    json.key("error_fp32").value(error_after(k, measured, reference, reference.fp32_latents));
    json.key("error_simulation").value(error_after(k, measured, reference, reference.simulation_latents)).end_object();
  }
  json.end_list().key("final").begin_object().key("psnr").begin_list();
  // Of samples that are no pictures no channel count stands for pixels: 0 is none of 1 and 3.
  const auto channels = bundle.sample_shape().size() == 4 ? static_cast<std::size_t>(bundle.sample_shape()[1]) : 0;
  for (std::size_t s = 0; s < seeds_of(measured); ++s) {
    json.value(psnr(latent(measured, reference, calls, s), reference.at(reference.fp32_latents, calls, s), channels,
                    reference.elements));
  }
  json.end_list().end_object();
}

void write_runtime(json::Writer& json, const Runtime& runtime) {
  json.key("runtime").begin_object().key("name").value(runtime.name).key("version").value(runtime.version).end_object();
  json.key("device").value(device_name());
  json.key("versions").begin_object();
  for (const auto& [name, version] : runtime.versions) json.key(name).value(version);
  for (const auto& [name, version] : system_versions()) json.key(name).value(version);
  json.end_object().key("compute_unit").value(runtime.compute_unit);
  json.key("emulated").value(runtime.emulated);
}

void write_measurements(json::Writer& json, const Runtime& runtime, const Measured& measured) {
  constexpr double unknown = std::numeric_limits<double>::quiet_NaN();  // the writer makes null of it
  json.key("load_ms").value(runtime.emulated ? unknown : runtime.load_ms);
  json.key("step_ms").begin_list();
  for (const double ms : measured.step_ms) json.value(runtime.emulated ? unknown : ms);
  json.end_list().key("peak_memory_bytes");
  if (const auto bytes = peak_memory()) json.value(*bytes);
  else json.null();
}

/// The bundle's folder as seen from the report's; both exist.
std::string relative_folder(const fs::path& bundle, const fs::path& report) {
  std::error_code error;
  const fs::path relative = fs::relative(bundle, report, error);
  return error || relative.empty() ? fs::absolute(bundle).string() : relative.string();
}

}  // namespace

void write_report(const fs::path& folder, const Bundle& bundle, const Reference& reference, const Runtime& runtime,
                  const Measured& measured) {
  std::error_code ignored;
  fs::remove(folder / json_file, ignored);
  NamedFloats tensors{{"latents", &measured.latents}};
  if (measured.outputs_at_simulation) tensors.emplace_back("outputs_at_simulation", &*measured.outputs_at_simulation);
  const Bytes bytes = safetensors_of(tensors);
  write_whole(folder / tensor_file, bytes.data(), bytes.size());

  json::Writer json;
  json.begin_object().key("schema").value("dq-toolchain/report").key("schema_version").value(std::int64_t{1});
  json.key("target").value(bundle.target);
  write_runtime(json, runtime);
  if (!bundle.samplings.empty()) {
    json.key("steps").value(static_cast<std::int64_t>(bundle.steps.value_or(0)));
    json.key("guidance").value(static_cast<double>(bundle.guidance));
  }
  json.key("bundle_sha256").value(bundle.sha256).key("bundle").value(relative_folder(bundle.folder, folder));
  write_measurements(json, runtime, measured);
  json.key("files").begin_object().key(tensor_file).value(sha256(bytes.data(), bytes.size())).end_object();
  write_figures(json, bundle, reference, measured);
  const std::string text = json.end_object().text() + "\n";
  write_whole(folder / json_file, text.data(), text.size());
}

}  // namespace dq
