#include "text_encoders.h"

#include "error.h"
#include "option_words.h"
#include "text_conditioning.h"

namespace dq {
namespace {

void check_wish(const GenerateArguments& arguments, const Bundle& bundle, const Pipeline& pipeline) {
  const bool text = !pipeline.encoders.empty(), labels = bundle.input(label_input) != nullptr;
  if (text && !arguments.prompt) throw Error("--prompt is missing: this model draws what a text says; give one" + see_help);
  if (!text && (arguments.prompt || !arguments.negative_prompt.empty())) {
    throw Error(std::string("--prompt: this model takes no text; ") + (labels ? "give --label" : "leave it out"));
  }
  if (labels && !arguments.label) throw Error("--label is missing: this model draws a class; give its number, from 0" + see_help);
  if (!labels && arguments.label) throw Error("--label: this model takes no class; leave it out");
  if (!bundle.is_guided() && !arguments.negative_prompt.empty()) {
    throw Error("--negative-prompt has no effect without guidance, which the bundle's sampler has not; leave it out, or choose another --guidance");
  }
}

void warn_if_cut(const std::string& option, const TokenizerPart& part, const EncodedPrompt& prompt, const Warn& warn) {
  if (prompt.left_out.empty()) return;
  warn(option + " is longer than the " + std::to_string(part.length) + " tokens of " + part.name + "; left out: " + prompt.left_out);
}

NamedTensors masks(const std::map<std::string, EncodedPrompt>& prompts) {
  NamedTensors tensors;
  for (const auto& [name, prompt] : prompts) tensors[name + ".mask"] = {{1, static_cast<std::int64_t>(prompt.mask.size())}, prompt.mask};
  return tensors;
}

void execute(const EncoderPart& encoder, Part& part, const EncodedPrompt& prompt, NamedTensors& tensors) {
  const Shape shape{1, static_cast<std::int64_t>(prompt.ids.size())};
  std::vector<PartInput> inputs{{{"ids", "int64", shape}, prompt.ids.data()}};
  if (encoder.mask) inputs.push_back({{"mask", "float32", shape}, prompt.mask.data()});
  std::vector<FloatTensor> answers = part.execute(inputs, encoder.outputs);
  if (answers.size() != encoder.outputs.size()) {
    throw Error(encoder.name + " gave " + std::to_string(answers.size()) + " tensors, expected are " + std::to_string(encoder.outputs.size()) + export_again);
  }
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const std::string name = encoder.name + "." + encoder.outputs[i];
    const bool hidden = encoder.outputs[i] == "hidden";
    const Shape& found = answers[i].shape;
    if (found.size() != (hidden ? 3 : 2) || found[0] != 1 || (hidden && found[1] != shape[1])) {
      const std::string wanted = hidden ? "(1, " + std::to_string(shape[1]) + ", width)" : "(1, width)";
      throw Error(name + " is " + to_string(found) + ", expected is " + wanted + export_again);
    }
    check_finite(answers[i], name);
    tensors[name] = std::move(answers[i]);
  }
}

}  // namespace

PromptTexts tokenize(const GenerateArguments& arguments, const Bundle& bundle, const Pipeline& pipeline, const Warn& warn) {
  check_wish(arguments, bundle, pipeline);
  PromptTexts texts;
  texts.label = arguments.label;
  texts.zeros = pipeline.zeros_without_negative && arguments.negative_prompt.empty();
  for (const TokenizerPart& part : pipeline.tokenizers) {
    const std::unique_ptr<Tokenizer> tokenizer = read_tokenizer(bundle.folder / part.folder, part.kind);
    texts.prompt[part.name] = encode_prompt(*tokenizer, part, arguments.prompt.value_or(""));
    warn_if_cut("--prompt", part, texts.prompt[part.name], warn);
    if (!bundle.is_guided()) continue;
    texts.negative[part.name] = encode_prompt(*tokenizer, part, arguments.negative_prompt);
    warn_if_cut("--negative-prompt", part, texts.negative[part.name], warn);
  }
  return texts;
}

Reference encode(const PromptTexts& texts, const Bundle& bundle, const Pipeline& pipeline, PartStore& parts) {
  NamedTensors prompt = masks(texts.prompt), negative = masks(texts.negative);
  for (const EncoderPart& encoder : pipeline.encoders) {
    const std::unique_ptr<Part> part = parts.take(encoder.program, encoder.name);
    execute(encoder, *part, texts.prompt.at(encoder.tokenizer), prompt);
    if (bundle.is_guided() && !texts.zeros) execute(encoder, *part, texts.negative.at(encoder.tokenizer), negative);
  }
  Reference given;
  given.seeds = 1;
  given.elements = bundle.output.elements();
  given.cond = conditioning_of(bundle, pipeline, prompt, {"cond", false, texts.label});
  if (bundle.is_guided()) given.uncond = conditioning_of(bundle, pipeline, negative, {"uncond", texts.zeros, {}});
  return given;
}

}  // namespace dq
