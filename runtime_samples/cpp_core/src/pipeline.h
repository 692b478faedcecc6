#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bundle.h"
#include "image_to_image.h"

namespace dq {

/// The input of a network that takes a class in the place of a prompt, or beside it.
inline constexpr const char* label_input = "class_labels";

/// A tokenizer's files, and what a prompt of `length` ids is made of.
struct TokenizerPart {
  std::string name, kind, folder;  // kind: clip or t5; folder relative to the bundle's
  std::size_t length = 0;
  std::int64_t pad = 0, end = 0;
  std::optional<std::int64_t> begin;
  bool lower = false;  // a prompt is put in lower case and stripped first
};

/// A text encoder: ids (1, length) and perhaps the mask of the tokenizer to `outputs`, each hidden or pooled.
struct EncoderPart {
  std::string name, tokenizer, program;
  bool mask = false;
  std::vector<std::string> outputs;
};

/// From latents (1, C, h, w) to a picture (1, channels, height, width) in [-1, 1].
struct DecoderPart {
  std::string program;
  std::size_t channels = 0, height = 0, width = 0;
};

/// The tensors of one row, "text_encoder.hidden", are joined along the last axis, the rows along axis 1.
using TensorRows = std::vector<std::vector<std::string>>;

/// pipeline.json: what stands around the network, from a prompt to a picture; checked so that the rest may rely on it.
struct Pipeline {
  std::vector<TokenizerPart> tokenizers;  // none, and no encoders: the network takes no text
  std::vector<EncoderPart> encoders;
  std::map<std::string, TensorRows> conditioning;  // by input of the network
  std::string constants;                     // a file of what no prompt decides, empty if there is none
  bool zeros_without_negative = false;       // an empty negative prompt is zeros, and not the encoded empty text
  std::optional<DecoderPart> decoder;        // none: the network makes pictures itself
  std::optional<ImageToImage> image;         // none: a run begins with noise only

  /// What pipeline.json says, without looking at other files. Throws Error.
  static Pipeline parse(std::string_view text, const Bundle& bundle);
  /// The same of a bundle. Throws Error: it has none, or it is damaged.
  static Pipeline load(const Bundle& bundle);
};

/// Throws Error: the bundle cannot begin with a picture.
const ImageToImage& image_to_image_of(const Pipeline& pipeline);

}  // namespace dq
