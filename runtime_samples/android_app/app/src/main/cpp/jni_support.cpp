#include "jni_support.h"

#include <new>

#include "utf8.h"

namespace dq::android {
namespace {

/// `text` may be anything: a path, a message of the system.
void raise_drawing_exception(JNIEnv* env, const std::string& text) {
  try {
    jobject exception = make(env, "org/dqtoolchain/draw/DrawingException", "([B)V", {of_object(bytes_of(env, printable(text)))});
    env->Throw(static_cast<jthrowable>(exception));
  } catch (const JavaException&) {  // Java has no memory left for it, and says that instead
  }
}

}  // namespace

void check(JNIEnv* env) {
  if (env->ExceptionCheck() == JNI_TRUE) throw JavaException();
}

std::string text_of(JNIEnv* env, jbyteArray utf8) {
  std::string text(static_cast<std::size_t>(env->GetArrayLength(utf8)), '\0');
  env->GetByteArrayRegion(utf8, 0, static_cast<jsize>(text.size()), reinterpret_cast<jbyte*>(text.data()));
  check(env);
  return text;
}

jbyteArray bytes_of(JNIEnv* env, const std::string& utf8) {
  const auto size = static_cast<jsize>(utf8.size());
  jbyteArray bytes = env->NewByteArray(size);
  check(env);
  env->SetByteArrayRegion(bytes, 0, size, reinterpret_cast<const jbyte*>(utf8.data()));
  return bytes;
}

jobject make(JNIEnv* env, const char* name, const char* signature, const std::vector<jvalue>& arguments) {
  jclass type = env->FindClass(name);
  check(env);
  const jmethodID constructor = env->GetMethodID(type, "<init>", signature);
  check(env);
  jobject made = env->NewObjectA(type, constructor, arguments.data());
  check(env);
  return made;
}

jobject guarded_call(JNIEnv* env, const std::function<jobject()>& body) {
  try {
    return body();
  } catch (const JavaException&) {
  } catch (const Stopped&) {
    if (jclass type = env->FindClass("java/util/concurrent/CancellationException")) env->ThrowNew(type, "stopped");
  } catch (const std::bad_alloc&) {
    raise_drawing_exception(env, "out of memory; load one part after the other, or take a phone with more");
  } catch (const std::exception& error) {
    raise_drawing_exception(env, error.what());
  }
  return nullptr;
}

}  // namespace dq::android
