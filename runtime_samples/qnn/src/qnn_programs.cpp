#include "qnn_programs.h"

#include <algorithm>
#include <utility>

#include "error.h"
#include "qnn_network.h"

namespace dq {
namespace {

const Port& find(const std::vector<Port>& ports, const std::string& name, const OnnxSession& session, const char* verb) {
  const auto found = std::find_if(ports.begin(), ports.end(), [&](const Port& port) { return port.name == name; });
  if (found == ports.end()) throw Error(session.name() + " " + verb + " no '" + name + "', which pipeline.json names" + export_again);
  return *found;
}

class QnnPart : public Part {
 public:
  explicit QnnPart(std::unique_ptr<OnnxSession> session) : session_(std::move(session)) {}

  std::vector<FloatTensor> execute(const std::vector<PartInput>& inputs, const std::vector<std::string>& outputs) override {
    const std::vector<const void*> given = in_order(inputs);
    std::vector<FloatTensor> made;
    std::vector<void*> places;
    for (const Port& port : session_->outputs()) {
      session_->expect(port, {port.name, "float32", port.shape}, "pipeline.json");
      made.push_back({port.shape, std::vector<float>(port.elements())});
    }
    for (FloatTensor& tensor : made) places.push_back(tensor.values.data());
    session_->execute(given, places);
    std::vector<FloatTensor> answers;
    for (const std::string& name : outputs) {
      const Port& port = find(session_->outputs(), name, *session_, "gives");
      answers.push_back(std::move(made[static_cast<std::size_t>(&port - session_->outputs().data())]));
    }
    return answers;
  }

 private:
  /// As the graph has them.
  std::vector<const void*> in_order(const std::vector<PartInput>& inputs) const {
    std::vector<const void*> given(session_->inputs().size(), nullptr);
    for (const PartInput& input : inputs) {
      const Port& own = find(session_->inputs(), input.port.name, *session_, "takes");
      session_->expect(own, input.port, "pipeline.json");
      given[static_cast<std::size_t>(&own - session_->inputs().data())] = input.data;
    }
    const auto lacking = std::find(given.begin(), given.end(), nullptr);
    if (lacking == given.end()) return given;
    const Port& port = session_->inputs()[static_cast<std::size_t>(lacking - given.begin())];
    throw Error(session_->name() + " takes '" + port.name + "', pipeline.json has no such input" + export_again);
  }

  std::unique_ptr<OnnxSession> session_;
};

}  // namespace

std::unique_ptr<Part> QnnPrograms::open(const std::filesystem::path& program, const std::string&) {
  const std::string name = program.filename().string();
  const bool compiled = device_.options().unit == Unit::npu;
  const std::filesystem::path graph = compiled ? device_.context_of(bundle_.folder, name + "/" + name) : program / (name + ".onnx");
  return std::make_unique<QnnPart>(device_.open(graph, false));
}

std::unique_ptr<Network> QnnPrograms::open_network(const Bundle& bundle) { return std::make_unique<QnnNetwork>(bundle, device_); }

}  // namespace dq
