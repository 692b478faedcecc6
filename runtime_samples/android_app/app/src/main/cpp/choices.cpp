#include "choices.h"

#include "error.h"
#include "files.h"
#include "pipeline.h"
#include "runtime.h"

namespace dq::android {
namespace {

/// What `read` makes of the file; a fault of it is named with the file.
template <typename Read>
auto of_file(const std::filesystem::path& path, const Read& read) {
  const Bytes bytes = read_file(path);
  try {
    return read(as_text(bytes));
  } catch (const Error& error) {
    throw Error(path.string() + ": " + error.what() + export_again);
  }
}

}  // namespace

Choices choices_of(const std::filesystem::path& folder) {
  const Bundle bundle = of_file(folder / "bundle.json", [](std::string_view text) { return Bundle::parse(text, runtime_target); });
  if (!std::filesystem::exists(folder / "pipeline.json")) {
    throw Error(folder.string() + " holds a network alone, without text encoder and decoder; export the whole pipeline");
  }
  const Pipeline pipeline = of_file(folder / "pipeline.json", [&](std::string_view text) { return Pipeline::parse(text, bundle); });
  Choices choices;
  const auto add = [&](std::size_t steps, float guidance) {
    choices.steps.push_back(static_cast<int>(steps));
    choices.guidances.push_back(guidance);
  };
  add(bundle.steps.value_or(bundle.table.calls()), bundle.guidance);
  for (const Sampling& sampling : bundle.samplings) add(sampling.steps, sampling.guidance);
  choices.takes_prompt = !pipeline.encoders.empty();
  choices.takes_label = bundle.input(label_input) != nullptr;
  return choices;
}

}  // namespace dq::android
