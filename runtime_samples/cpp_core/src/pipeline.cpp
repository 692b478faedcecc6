#include "pipeline.h"

#include <algorithm>
#include <set>

#include "bundle_files.h"
#include "error.h"
#include "files.h"
#include "json_numbers.h"

namespace dq {
namespace {

constexpr const char* pipeline_file = "pipeline.json";
constexpr std::int64_t longest_prompt = 4096, largest_id = 0x7FFFFFFF;

std::string name_at(const json::Value& row) {
  const std::string& name = row.text_at("name");
  if (!is_plain(name)) throw Error("name must be letters, digits, _ . and -, got " + name);
  return name;
}

template <typename Part>
const Part* find(const std::vector<Part>& parts, const std::string& name) {
  const auto found = std::find_if(parts.begin(), parts.end(), [&](const Part& part) { return part.name == name; });
  return found == parts.end() ? nullptr : &*found;
}

TokenizerPart read_tokenizer_part(const json::Value& row) {
  TokenizerPart part;
  part.name = name_at(row);
  part.kind = row.text_at("kind");
  if (part.kind != "clip" && part.kind != "t5") throw Error("kind must be clip or t5, got " + part.kind);
  part.folder = path_at(row, "folder");
  part.length = static_cast<std::size_t>(integer_within(row, "length", 3, longest_prompt));
  part.pad = integer_within(row, "pad", 0, largest_id);
  part.end = integer_within(row, "end", 0, largest_id);
  if (const json::Value* lower = row.find("lower")) part.lower = lower->boolean("lower");
  if (!row.at("begin").is_null()) part.begin = integer_within(row, "begin", 0, largest_id);
  return part;
}

EncoderPart read_encoder_part(const json::Value& row, const std::vector<TokenizerPart>& tokenizers) {
  EncoderPart part;
  part.name = name_at(row);
  part.tokenizer = row.text_at("tokenizer");
  if (find(tokenizers, part.tokenizer) == nullptr) throw Error("tokenizer must be one of tokenizers, got " + part.tokenizer);
  part.program = path_at(row, "program");
  part.mask = row.at("mask").boolean("mask");
  std::set<std::string> known{"hidden", "pooled"};
  for (const json::Value& output : row.list_at("outputs")) {
    part.outputs.push_back(output.text("outputs"));
    if (known.erase(part.outputs.back()) == 0) throw Error("outputs must be hidden and pooled, each once, got " + part.outputs.back());
  }
  if (part.outputs.empty()) throw Error("outputs must not be empty");
  return part;
}

template <typename Part, typename Read>
std::vector<Part> read_parts(const json::Value& file, const char* key, Read read) {
  std::vector<Part> parts;
  for (const json::Value& row : file.list_at(key)) {
    try {
      parts.push_back(read(row));
    } catch (const Error& error) {
      throw Error(std::string(key) + "[" + std::to_string(parts.size()) + "]: " + error.what());
    }
    if (find(parts, parts.back().name) != &parts.back()) throw Error(std::string(key) + " holds " + parts.back().name + " twice");
  }
  return parts;
}

/// encoder.hidden, encoder.pooled or tokenizer.mask.
void check_reference(const std::string& name, const Pipeline& pipeline) {
  const std::size_t dot = name.rfind('.');
  const std::string part = name.substr(0, dot), what = dot == std::string::npos ? "" : name.substr(dot + 1);
  const EncoderPart* encoder = find(pipeline.encoders, part);
  const bool output = encoder != nullptr && std::count(encoder->outputs.begin(), encoder->outputs.end(), what) != 0;
  if (!output && !(what == "mask" && find(pipeline.tokenizers, part) != nullptr)) {
    throw Error("must hold outputs of encoders, or the mask of a tokenizer, got " + name);
  }
}

TensorRows read_tensor_rows(const json::Value& value, const Pipeline& pipeline) {
  TensorRows rows;
  for (const json::Value& row : value.list("a row")) {
    rows.emplace_back();
    for (const json::Value& name : row.list("a row")) {
      rows.back().push_back(name.text("a tensor"));
      check_reference(rows.back().back(), pipeline);
    }
    if (rows.back().empty()) throw Error("must not hold an empty row");
  }
  if (rows.empty()) throw Error("must not be empty");
  return rows;
}

DecoderPart read_decoder(const json::Value& row) {
  DecoderPart part;
  part.program = path_at(row, "program");
  part.channels = static_cast<std::size_t>(integer_within(row, "channels", 1, 3));
  if (part.channels == 2) throw Error("channels must be 1 or 3, got 2");
  part.height = static_cast<std::size_t>(integer_within(row, "height", 1, largest_side));
  part.width = static_cast<std::size_t>(integer_within(row, "width", 1, largest_side));
  return part;
}

void check_parts(const Pipeline& pipeline, const Bundle& bundle) {
  for (const TokenizerPart& part : pipeline.tokenizers) bundle.expect_listed(part.folder);
  for (const EncoderPart& part : pipeline.encoders) bundle.expect_listed(part.program);
  if (!pipeline.constants.empty()) bundle.expect_listed(pipeline.constants);
  if (pipeline.decoder) bundle.expect_listed(pipeline.decoder->program);
  if (pipeline.image) bundle.expect_listed(pipeline.image->program);
}

}  // namespace

Pipeline Pipeline::parse(std::string_view text, const Bundle& bundle) {
  const json::Value file = json::parse(text);
  if (const std::string& schema = file.text_at("schema"); schema != "dq-toolchain/pipeline") {
    throw Error("schema must be dq-toolchain/pipeline, got " + schema);
  }
  if (const std::int64_t version = file.integer_at("schema_version"); version != 1) {
    throw Error("schema_version " + std::to_string(version) + " is not supported, allowed is 1");
  }
  Pipeline pipeline;
  pipeline.tokenizers = read_parts<TokenizerPart>(file, "tokenizers", read_tokenizer_part);
  pipeline.encoders = read_parts<EncoderPart>(file, "encoders", [&](const json::Value& row) { return read_encoder_part(row, pipeline.tokenizers); });
  for (const json::Member& member : file.object_at("conditioning")) {
    const Port* port = bundle.input(member.name);
    if (port == nullptr || !port->is_conditioning()) throw Error("conditioning names " + member.name + ", which the network does not take");
    if (port->dtype != "float32") throw Error("conditioning names " + member.name + ", which is not float32");
    try {
      pipeline.conditioning[member.name] = read_tensor_rows(member.value, pipeline);
    } catch (const Error& error) {
      throw Error("conditioning." + member.name + ": " + error.what());
    }
  }
  if (!file.at("constants").is_null()) pipeline.constants = path_at(file, "constants");
  for (const Port& port : bundle.inputs) {
    if (!port.is_conditioning() || port.name == label_input || pipeline.conditioning.count(port.name) != 0 || !pipeline.constants.empty()) continue;
    throw Error("conditioning lacks " + port.name + ", which the network takes, and there are no constants");
  }
  pipeline.zeros_without_negative = file.at("zeros_without_negative").boolean("zeros_without_negative");
  if (const json::Value& decoder = file.at("decoder"); !decoder.is_null()) pipeline.decoder = read_decoder(decoder);
  if (const json::Value* image = file.find("image_to_image")) {
    try {
      pipeline.image = ImageToImage::from_json(*image);
    } catch (const Error& error) {
      throw Error(std::string("image_to_image: ") + error.what());
    }
  }
  return pipeline;
}

const ImageToImage& image_to_image_of(const Pipeline& pipeline) {
  if (pipeline.image) return *pipeline.image;
  throw Error("--image: the bundle has no encoder of pictures; export it with --image-to-image, or leave --image out");
}

Pipeline Pipeline::load(const Bundle& bundle) {
  const std::filesystem::path path = bundle.folder / pipeline_file;
  if (!lists(bundle.files, pipeline_file)) {
    throw Error(bundle.folder.string() + " holds a network alone, without text encoder and decoder; export the whole pipeline");
  }
  const Bytes bytes = read_file(path);
  try {
    Pipeline pipeline = parse(as_text(bytes), bundle);
    check_parts(pipeline, bundle);
    return pipeline;
  } catch (const Error& error) {
    throw Error(path.string() + ": " + error.what() + export_again);
  }
}

}  // namespace dq
