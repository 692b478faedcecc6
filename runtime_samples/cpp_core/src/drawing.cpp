#include "drawing.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "denoiser.h"
#include "error.h"
#include "pipeline.h"
#include "progress.h"
#include "sampler.h"
#include "torch_random.h"

namespace dq {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char *decoder_name = "decoder", *image_encoder_name = "vae_encoder";

/// What the arguments begin with; none: noise. Throws Error.
std::optional<Beginning> beginning_of(const GenerateArguments& arguments, const Bundle& bundle, const Pipeline& pipeline) {
  if (!arguments.picture) return {};
  const ImageToImage& image = image_to_image_of(pipeline);
  if (arguments.picture->height != image.height || arguments.picture->width != image.width) {
    throw Error("--image: the picture has " + std::to_string(arguments.picture->width) + " x " + std::to_string(arguments.picture->height) +
                " pixels, the model takes " + std::to_string(image.width) + " x " + std::to_string(image.height) + "; scale or crop it");
  }
  return beginning_of(image, bundle, arguments.strength);
}

/// A picture of a bundle, step by step. `begin` is null where it begins with noise.
class Drawing {
 public:
  Drawing(const GenerateArguments& arguments, const Bundle& bundle, const Pipeline& pipeline, const Beginning* begin, Programs& programs,
          const Warn& warn, const OnProgress& on_progress)
      : arguments_(arguments), bundle_(begin == nullptr ? bundle : begin->rest), programs_(programs), pipeline_(pipeline), begin_(begin),
        warn_(warn), on_progress_(on_progress), parts_(bundle.folder, programs) {
    if (begin == nullptr && !bundle.table.init_noise_sigma) throw Error((bundle.folder / "bundle.json").string() + ": the table lacks init_noise_sigma" + export_again);
  }

  /// (1, C, h, w), as the sampler leaves them.
  FloatTensor latents() {
    tell(0);
    const PromptTexts texts = tokenize(arguments_, bundle_, pipeline_, warn_);
    if (!arguments_.low_memory) {  // faults of any part show before the long wait
      for (const EncoderPart& part : pipeline_.encoders) {
        parts_.open(part.program, part.name);
        tell(0);
      }
      if (begin_ != nullptr) parts_.open(pipeline_.image->program, image_encoder_name);
      network_ = programs_.open_network(bundle_);
      if (pipeline_.decoder) parts_.open(pipeline_.decoder->program, decoder_name);
    }
    tell(0);
    const Reference given = encode(texts, bundle_, pipeline_, parts_);
    tell(0);
    TorchGenerator generator(arguments_.seed);
    std::vector<float> start = begin_ == nullptr ? noise(generator, given.elements) : noised_picture(generator, given.elements);
    const auto started = Clock::now();
    if (network_ == nullptr) network_ = programs_.open_network(bundle_);
    std::vector<float> last = sample(given, std::move(start), generator);
    network_.reset();
    seconds_of_network_ = std::chrono::duration<double>(Clock::now() - started).count();
    return {bundle_.sample_shape(), std::move(last)};
  }

  /// (1, 1 or 3, H, W), about -1 to 1.
  FloatTensor decode(FloatTensor latents) {
    const Stage stage("decoding the picture");
    FloatTensor picture = pipeline_.decoder ? decoded(*pipeline_.decoder, latents) : std::move(latents);
    if (picture.shape.size() != 4 || (picture.shape[1] != 1 && picture.shape[1] != 3)) {
      throw Error("a picture is (1, 1 or 3, H, W), got " + to_string(picture.shape) + "; this model makes no pictures");
    }
    check_finite(picture, "the picture");
    return picture;
  }

  double seconds_of_network() const { return seconds_of_network_; }

 private:
  void tell(std::size_t done) const { on_progress_(done, bundle_.table.calls()); }

  FloatTensor decoded(const DecoderPart& decoder, const FloatTensor& latents) {
    const std::unique_ptr<Part> part = parts_.take(decoder.program, decoder_name);
    std::vector<FloatTensor> answer = part->execute({{{"latents", "float32", latents.shape}, latents.values.data()}}, {"picture"});
    const auto side = [](std::size_t size) { return static_cast<std::int64_t>(size); };
    const Shape wanted{1, side(decoder.channels), side(decoder.height), side(decoder.width)};
    if (answer.size() != 1 || answer[0].shape != wanted) {
      throw Error("the decoder gave " + (answer.empty() ? "nothing" : to_string(answer[0].shape)) + ", expected is " + to_string(wanted) + export_again);
    }
    return std::move(answer[0]);
  }

  std::vector<float> noise(TorchGenerator& generator, std::size_t size) const {
    const std::vector<float> drawn = generator.randn(size);
    return scaled(*bundle_.table.init_noise_sigma, drawn.data(), size);
  }

  /// x = signal * latent + noise * noise; the latent is drawn where the encoder gives a deviation.
  std::vector<float> noised_picture(TorchGenerator& generator, std::size_t size) {
    std::vector<FloatTensor> answers = encoded(*pipeline_.image);
    std::vector<float> x = std::move(answers[0].values);
    if (answers.size() == 2) {
      const std::vector<float> drawn = generator.randn(size);
      for (std::size_t i = 0; i < size; ++i) x[i] += answers[1].values[i] * drawn[i];
    }
    const std::vector<float> drawn = generator.randn(size);
    for (std::size_t i = 0; i < size; ++i) x[i] = begin_->start.signal * x[i] + begin_->start.noise * drawn[i];
    return x;
  }

  /// Mean, and deviation if there is one, of the sampler's latent.
  std::vector<FloatTensor> encoded(const ImageToImage& image) {
    const Stage stage("encoding the picture");
    const std::unique_ptr<Part> part = parts_.take(image.program, image_encoder_name);
    const FloatTensor picture = tensor_of(*arguments_.picture);
    std::vector<FloatTensor> answers = part->execute({{{"picture", "float32", picture.shape}, picture.values.data()}}, image.outputs);
    if (answers.size() != image.outputs.size()) {
      throw Error("the encoder of pictures gave " + std::to_string(answers.size()) + " tensors, expected are " + std::to_string(image.outputs.size()) + export_again);
    }
    for (const FloatTensor& answer : answers) {
      if (answer.shape != bundle_.sample_shape()) {
        throw Error("the encoder of pictures gave " + to_string(answer.shape) + ", expected is " + to_string(bundle_.sample_shape()) + export_again);
      }
      check_finite(answer, "the encoded picture");
    }
    return answers;
  }

  std::vector<float> sample(const Reference& given, std::vector<float> start, TorchGenerator& generator) {
    std::vector<float> step_noise;
    std::size_t drawn = 0;  // one for every step, in their order, as diffusers draws them
    Denoiser denoiser(bundle_, given, *network_);
    Progress progress(bundle_.table.calls(), "steps");
    const auto noise_of = [&](std::size_t k) {
      for (; drawn <= k; ++drawn) step_noise = generator.randn(given.elements);
      return step_noise.data();
    };
    const auto denoise = [&](const std::vector<float>& x, std::size_t k) {
      std::vector<float> output = denoiser(x, k, 0);
      if (!std::all_of(output.begin(), output.end(), [](float value) { return std::isfinite(value); })) {
        throw Error("the network gave NaN or infinity in step " + std::to_string(k) + "; see what `dq-toolchain validate` says of the bundle");
      }
      progress.advance();
      tell(k + 1);
      return output;
    };
    return rollout(bundle_.table, std::move(start), noise_of, denoise).back();
  }

  const GenerateArguments& arguments_;
  const Bundle& bundle_;
  Programs& programs_;
  const Pipeline& pipeline_;
  const Beginning* begin_;
  const Warn& warn_;
  const OnProgress& on_progress_;
  PartStore parts_;
  std::unique_ptr<Network> network_;
  double seconds_of_network_ = 0;
};

}  // namespace

Drawn draw(const GenerateArguments& arguments, const Bundle& bundle, Programs& programs, const Warn& warn, const OnProgress& on_progress) {
  const Pipeline pipeline = Pipeline::load(bundle);
  const std::optional<Beginning> begin = beginning_of(arguments, bundle, pipeline);
  Drawing drawing(arguments, bundle, pipeline, begin ? &*begin : nullptr, programs, warn, on_progress);
  FloatTensor latents = drawing.latents();
  Picture picture = picture_of(drawing.decode(latents));
  const std::size_t steps = begin ? begin->steps : bundle.steps.value_or(bundle.table.calls());
  return {std::move(picture), std::move(latents), drawing.seconds_of_network(), begin ? begin->step : 0, steps};
}

}  // namespace dq
