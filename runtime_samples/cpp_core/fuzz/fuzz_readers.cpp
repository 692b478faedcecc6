// dq-fuzz --corpus FOLDER [--runs N] [--seed S] [--keep FOLDER]: changed files through the readers, the same ones for
// a seed. Passing is ending: build with -DDQ_SANITIZE=ON, so that a read beyond the end or an overflow aborts. What
// reaches a new place joins the corpus for the rest of the run; --keep writes it out.

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "bundle.h"
#include "clip_tokenizer.h"
#include "error.h"
#include "files.h"
#include "json.h"
#include "mutator.h"
#include "pipeline.h"
#include "safetensors.h"
#include "sha256.h"
#include "t5_tokenizer.h"

namespace {

namespace fs = std::filesystem;

struct Options {
  fs::path corpus, keep;
  std::uint64_t runs = 1'000'000, seed = 1;
};

void read_as_json(const dq::Bytes& bytes) { dq::json::parse(dq::as_text(bytes)); }

void read_as_bundle(const dq::Bytes& bytes) { dq::Bundle::parse(dq::as_text(bytes), "golden"); }

void read_as_safetensors(const dq::Bytes& bytes) {
  const dq::TensorFile file = dq::TensorFile::parse(bytes);
  for (const std::string& name : file.names()) {
    try {
      file.floats(name);
    } catch (const dq::Error&) {
      file.integers(name);
    }
  }
}

dq::Bundle bundle_of_a_pipeline() {
  dq::Bundle bundle;
  bundle.output = {"output", "float32", {1, 4, 6, 6}};
  bundle.inputs = {{"sample", "float32", {1, 4, 6, 6}}, {"timestep", "float32", {1}}, {"encoder_hidden_states", "float32", {1, 16, 12}},
                   {"text_embeds", "float32", {1, 7}}, {"time_ids", "float32", {1, 6}}};
  return bundle;
}

void read_as_pipeline(const dq::Bytes& bytes) {
  static const dq::Bundle bundle = bundle_of_a_pipeline();
  dq::Pipeline::parse(dq::as_text(bytes), bundle);
}

/// What is read must serve, too: text with marks, white space and characters beyond the first plane.
void use(const dq::Tokenizer& tokenizer) { tokenizer.text(tokenizer.ids("ab a\u0301  \U0001F600<unk>\u2581b A\uFF21\r\n")); }

void read_as_clip(const dq::Bytes& bytes) { use(*dq::read_clip_tokenizer(dq::json::parse(dq::as_text(bytes)))); }

void read_as_t5(const dq::Bytes& bytes) { use(*dq::read_t5_tokenizer(dq::json::parse(dq::as_text(bytes)))); }

/// How a reader answered, numbers left out: a new answer means that the input reached a new place.
std::string answer_of(const char* reader, void (*read)(const dq::Bytes&), const dq::Bytes& bytes) {
  std::string answer = std::string(reader) + ": ";
  try {
    read(bytes);
    return answer + "accepted";
  } catch (const dq::Error& error) {
    for (const char* c = error.what(); *c != '\0' && answer.size() < 44; ++c) {
      if (*c < '0' || *c > '9') answer.push_back(*c);
    }
  }
  return answer;
}

std::string answers_of(const dq::Bytes& bytes) {
  const bool begins_with_length = bytes.size() >= 8 && bytes[7] == 0;  // no text has a NUL there
  if (begins_with_length) return answer_of("safetensors", read_as_safetensors, bytes);
  std::string answers = answer_of("json", read_as_json, bytes) + " " + answer_of("bundle", read_as_bundle, bytes);
  if (answers.rfind("json: accepted", 0) != 0) return answers;
  return answers + " " + answer_of("pipeline", read_as_pipeline, bytes) + " " + answer_of("clip", read_as_clip, bytes) + " " +
         answer_of("t5", read_as_t5, bytes);
}

Options parse_options(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--corpus") options.corpus = argv[i + 1];
    else if (name == "--keep") options.keep = argv[i + 1];
    else if (name == "--runs") options.runs = std::strtoull(argv[i + 1], nullptr, 10);
    else if (name == "--seed") options.seed = std::strtoull(argv[i + 1], nullptr, 10);
    else throw dq::Error("unknown argument " + name);
  }
  if (options.corpus.empty() || argc % 2 == 0) {
    throw dq::Error("usage: --corpus FOLDER [--runs N] [--seed S] [--keep FOLDER]");
  }
  return options;
}

std::vector<dq::Bytes> read_corpus(const fs::path& folder) {
  std::set<fs::path> paths;  // sorted: the order of a folder is not the same everywhere
  for (const auto& entry : fs::directory_iterator(folder)) paths.insert(entry.path());
  std::vector<dq::Bytes> corpus;
  for (const fs::path& path : paths) corpus.push_back(dq::read_file(path));
  if (corpus.empty()) throw dq::Error(folder.string() + " is empty");
  return corpus;
}

void fuzz(const Options& options) {
  std::vector<dq::Bytes> corpus = read_corpus(options.corpus);
  dq::Mutator mutator(options.seed);
  std::set<std::string> known;
  for (const dq::Bytes& bytes : corpus) known.insert(answers_of(bytes));
  std::uint64_t accepted = 0;
  for (std::uint64_t run = 0; run < options.runs; ++run) {
    const dq::Bytes bytes = mutator.changed(corpus);
    const std::string answer = answers_of(bytes);
    accepted += answer.find("accepted") != std::string::npos ? 1 : 0;
    if (!known.insert(answer).second || known.size() > 1000) continue;
    corpus.push_back(bytes);
    if (!options.keep.empty()) {
      const std::string name = dq::sha256(bytes.data(), bytes.size()).substr(0, 12);
      dq::write_whole(options.keep / name, bytes.data(), bytes.size());
    }
  }
  std::printf("%llu inputs, %llu accepted, %zu different answers\n", static_cast<unsigned long long>(options.runs),
              static_cast<unsigned long long>(accepted), known.size());
}

}  // namespace

int main(int argc, char** argv) {
  try {
    fuzz(parse_options(argc, argv));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dq-fuzz: %s\n", error.what());
    return 2;
  }
}
