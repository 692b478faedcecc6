#pragma once

#include <jni.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace dq::android {

/// A Java exception is on its way: nothing more may be asked of Java, and it is raised when the native method returns.
struct JavaException : std::exception {};

/// A person stopped the drawing.
struct Stopped : std::exception {};

/// Throws JavaException if the last call of JNI left one.
void check(JNIEnv* env);

/// UTF-8, as Java's String.getBytes gives it. JNI's own strings are not UTF-8: they write an emoji as six bytes. Throws JavaException.
std::string text_of(JNIEnv* env, jbyteArray utf8);
jbyteArray bytes_of(JNIEnv* env, const std::string& utf8);

/// `new NAME(arguments)`; NAME as "org/dqtoolchain/draw/DrawnPicture". Throws JavaException.
jobject make(JNIEnv* env, const char* name, const char* signature, const std::vector<jvalue>& arguments);

/// Runs the body of a native method. What it throws becomes a Java exception: Error and memory that runs out a DrawingException,
/// Stopped a CancellationException, a JavaException stays what it is. Then null is returned, which Java does not see.
jobject guarded_call(JNIEnv* env, const std::function<jobject()>& body);

inline jvalue of_int(jint value) { jvalue all{}; all.i = value; return all; }
inline jvalue of_long(jlong value) { jvalue all{}; all.j = value; return all; }
inline jvalue of_double(jdouble value) { jvalue all{}; all.d = value; return all; }
inline jvalue of_bool(bool value) { jvalue all{}; all.z = value ? JNI_TRUE : JNI_FALSE; return all; }
inline jvalue of_object(jobject value) { jvalue all{}; all.l = value; return all; }

}  // namespace dq::android
