#include "replay_programs.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "error.h"
#include "files.h"
#include "replay_network.h"

namespace dq {
namespace {

class ReplayPart : public Part {
  void expect(const std::string& what, bool holds) const {
    if (!holds) throw Error(what + " of execution " + std::to_string(next_) + " is not what the recording has; correct the program");
  }

  /// Of this execution.
  template <typename Tensor>
  auto row(const std::string& what, const Tensor& all, const Shape& shape) const {
    const std::size_t elements = count_elements(shape);
    Shape one = all.shape;
    if (!one.empty()) one[0] = 1;
    expect(what, one == shape && (next_ + 1) * elements <= all.values.size());
    return all.values.data() + next_ * elements;
  }

 public:
  ReplayPart(const std::filesystem::path& recording, std::string name) : file_(TensorFile::read(recording)), name_(std::move(name)) {}

  std::vector<FloatTensor> execute(const std::vector<PartInput>& inputs, const std::vector<std::string>& outputs) override {
    for (const PartInput& input : inputs) {
      const std::string name = name_ + "." + input.port.name;
      if (input.port.dtype == "int64") {
        const IntegerTensor all = file_.integers(name);
        expect(name, std::memcmp(row(name, all, input.port.shape), input.data, input.port.elements() * sizeof(std::int64_t)) == 0);
      } else {
        const FloatTensor all = file_.floats(name);
        const float *wanted = row(name, all, input.port.shape), *got = static_cast<const float*>(input.data);
        for (std::size_t i = 0; i < input.port.elements(); ++i) {
          expect(name, std::fabs(got[i] - wanted[i]) <= 1e-6F * std::max(1.0F, std::fabs(wanted[i])));
        }
      }
    }
    std::vector<FloatTensor> answers;
    for (const std::string& output : outputs) {
      if (!file_.has(name_ + "." + output)) continue;
      const FloatTensor all = file_.floats(name_ + "." + output);
      Shape shape = all.shape;
      shape[0] = 1;
      const float* first = row(output, all, shape);
      answers.push_back({shape, {first, first + count_elements(shape)}});
    }
    ++next_;
    return answers;
  }

 private:
  TensorFile file_;
  std::string name_;
  std::size_t next_ = 0;
};

}  // namespace

std::unique_ptr<Part> ReplayPrograms::open(const std::filesystem::path& program, const std::string& name) {
  read_file(program);  // a runtime would
  return std::make_unique<ReplayPart>(recording_, name);
}

std::unique_ptr<Network> ReplayPrograms::open_network(const Bundle& bundle) {
  return std::make_unique<ReplayNetwork>(recording_, bundle);
}

}  // namespace dq
