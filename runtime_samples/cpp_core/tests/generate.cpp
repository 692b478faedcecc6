// dq-generate-replay RECORDING --bundle FOLDER --prompt TEXT --out PICTURE.png ...: `generate` with a recording in place of a runtime.
// Refuses --low-memory where two programs are open at a time.

#include <cstdio>

#include "error.h"
#include "generate.h"
#include "replay_programs.h"

namespace {

int open_now = 0;

/// Counts what is open.
template <typename Base>
class Counted : public Base {
 public:
  explicit Counted(std::unique_ptr<Base> base) : base_(std::move(base)) { ++open_now; }
  ~Counted() override { --open_now; }

 protected:
  std::unique_ptr<Base> base_;
};

struct CountedPart : Counted<dq::Part> {
  using Counted::Counted;
  std::vector<dq::FloatTensor> execute(const std::vector<dq::PartInput>& inputs, const std::vector<std::string>& outputs) override {
    return base_->execute(inputs, outputs);
  }
};

struct CountedNetwork : Counted<dq::Network> {
  using Counted::Counted;
  void execute(std::size_t method, const std::vector<dq::Input>& inputs, std::vector<float>& output) override {
    base_->execute(method, inputs, output);
  }
  dq::Runtime runtime() const override { return base_->runtime(); }
};

class CountedPrograms : public dq::ReplayPrograms {
 public:
  CountedPrograms(const char* recording, bool low_memory) : ReplayPrograms(recording), low_memory_(low_memory) {}

  std::unique_ptr<dq::Part> open(const std::filesystem::path& program, const std::string& name) override {
    expect_few();
    return std::make_unique<CountedPart>(ReplayPrograms::open(program, name));
  }

  std::unique_ptr<dq::Network> open_network(const dq::Bundle& bundle) override {
    expect_few();
    return std::make_unique<CountedNetwork>(ReplayPrograms::open_network(bundle));
  }

 private:
  void expect_few() const {
    if (low_memory_ && open_now > 0) throw dq::Error("another program is still open; free it first");
  }

  bool low_memory_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("dq-generate-replay: a recording must come first; name a replay.safetensors\n", stderr);
    return 2;
  }
  const char* recording = argv[1];
  const auto open = [&](const dq::GenerateArguments& arguments, const dq::Bundle&) {
    return std::make_unique<CountedPrograms>(recording, arguments.low_memory);
  };
  return dq::run_generate("dq-generate-replay", argc - 1, argv + 1, dq::any_target, open);
}
