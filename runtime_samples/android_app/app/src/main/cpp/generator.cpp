// The native methods of org.dqtoolchain.draw.Generator.

#include <chrono>
#include <cmath>

#include "choices.h"
#include "drawing.h"
#include "jni_support.h"
#include "machine.h"
#include "prompt.h"
#include "runtime.h"

namespace dq::android {
namespace {

/// Calls `goesOn` of a Progress.
class Listener {
 public:
  Listener(JNIEnv* env, jobject progress) : env_(env), progress_(progress) {
    method_ = env->GetMethodID(env->GetObjectClass(progress), "goesOn", "(II)Z");
    check(env);
  }

  void operator()(std::size_t done, std::size_t total) const {
    const bool goes_on = env_->CallBooleanMethod(progress_, method_, static_cast<jint>(done), static_cast<jint>(total)) == JNI_TRUE;
    check(env_);
    if (!goes_on) throw Stopped();
  }

 private:
  JNIEnv* env_;
  jobject progress_;
  jmethodID method_ = nullptr;
};

jintArray ints_of(JNIEnv* env, const std::vector<jint>& values) {
  jintArray array = env->NewIntArray(static_cast<jsize>(values.size()));
  check(env);
  env->SetIntArrayRegion(array, 0, static_cast<jsize>(values.size()), values.data());
  return array;
}

jdoubleArray doubles_of(JNIEnv* env, const std::vector<jdouble>& values) {
  jdoubleArray array = env->NewDoubleArray(static_cast<jsize>(values.size()));
  check(env);
  env->SetDoubleArrayRegion(array, 0, static_cast<jsize>(values.size()), values.data());
  return array;
}

jobjectArray texts_of(JNIEnv* env, const std::vector<std::string>& texts) {
  jclass bytes = env->FindClass("[B");
  check(env);
  jobjectArray array = env->NewObjectArray(static_cast<jsize>(texts.size()), bytes, nullptr);
  check(env);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    jbyteArray text = bytes_of(env, texts[i]);
    env->SetObjectArrayElement(array, static_cast<jsize>(i), text);
    env->DeleteLocalRef(text);
  }
  return array;
}

/// 0xAARRGGBB, opaque.
std::vector<jint> argb_of(const Picture& picture) {
  std::vector<jint> argb(picture.height * picture.width);
  for (std::size_t i = 0; i < argb.size(); ++i) {
    const std::uint8_t* pixel = picture.pixels.data() + i * picture.channels;
    const std::uint32_t red = pixel[0], green = pixel[picture.channels / 2], blue = pixel[picture.channels - 1];  // one, or three
    argb[i] = static_cast<jint>(0xFF000000U | red << 16 | green << 8 | blue);
  }
  return argb;
}

jobject drawn_picture(JNIEnv* env, const GenerateArguments& arguments, const Listener& listener) {
  const auto started = std::chrono::steady_clock::now();
  listener(0, 0);  // hashing a bundle takes seconds
  const Bundle bundle = Bundle::load(arguments.bundle, runtime_target).at(arguments.steps, arguments.guidance);
  const std::unique_ptr<Programs> programs = open_programs(arguments, bundle);
  std::vector<std::string> warnings;
  const Drawn drawn = draw(arguments, bundle, *programs, [&](const std::string& text) { warnings.push_back(text); }, std::cref(listener));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return make(env, "org/dqtoolchain/draw/DrawnPicture", "(II[IDDJ[[B)V",
              {of_int(static_cast<jint>(drawn.picture.width)), of_int(static_cast<jint>(drawn.picture.height)),
               of_object(ints_of(env, argb_of(drawn.picture))), of_double(seconds), of_double(drawn.seconds_of_network),
               of_long(peak_memory().value_or(0)), of_object(texts_of(env, warnings))});
}

}  // namespace
}  // namespace dq::android

extern "C" {

JNIEXPORT jobject JNICALL Java_org_dqtoolchain_draw_Generator_inspect(JNIEnv* env, jclass, jbyteArray folder) {
  using namespace dq::android;
  return guarded_call(env, [&] {
    const Choices choices = choices_of(text_of(env, folder));
    return make(env, "org/dqtoolchain/draw/BundleFacts", "([I[DZZ)V",
                {of_object(ints_of(env, {choices.steps.begin(), choices.steps.end()})), of_object(doubles_of(env, choices.guidances)),
                 of_bool(choices.takes_prompt), of_bool(choices.takes_label)});
  });
}

JNIEXPORT jobject JNICALL Java_org_dqtoolchain_draw_Generator_draw(JNIEnv* env, jclass, jbyteArray folder, jbyteArray prompt, jbyteArray negative_prompt,
                                                                   jlong label, jlong seed, jint steps, jdouble guidance, jint threads,
                                                                   jboolean low_memory, jobject progress) {
  using namespace dq::android;
  return guarded_call(env, [&] {
    dq::GenerateArguments arguments;
    arguments.bundle = text_of(env, folder);
    if (prompt != nullptr) arguments.prompt = text_of(env, prompt);
    arguments.negative_prompt = text_of(env, negative_prompt);
    if (label >= 0) arguments.label = label;
    arguments.seed = static_cast<std::uint64_t>(seed);
    if (steps > 0) arguments.steps = static_cast<std::size_t>(steps);
    if (!std::isnan(guidance)) arguments.guidance = guidance;
    if (threads > 0) arguments.threads = static_cast<std::size_t>(threads);
    arguments.low_memory = low_memory == JNI_TRUE;
    dq::check_prompt("the prompt", arguments.prompt.value_or(""));
    dq::check_prompt("the negative prompt", arguments.negative_prompt);
    return drawn_picture(env, arguments, Listener(env, progress));
  });
}

}  // extern "C"
