#!/usr/bin/env bash
# Fetches the libraries for the phone from Maven and cross-compiles dq-run for Android, arm64-v8a.
#
#   ANDROID_NDK=FOLDER android/build.sh [BUILD_FOLDER]
#
# By fetching qnn-runtime you accept Qualcomm's licence. Nothing of it is part of this project.
set -euo pipefail

fail() {
    echo "android/build.sh: $1" >&2
    exit 2
}

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
[ $# -le 1 ] || fail "got $# arguments, at most 1 is allowed; name a build folder or nothing"
build="${1:-$here/build/android}"
[ -n "${ANDROID_NDK:-}" ] || fail "ANDROID_NDK is not set; set it to the folder of an Android NDK, r26 or later"
toolchain="$ANDROID_NDK/build/cmake/android.toolchain.cmake"
[ -f "$toolchain" ] || fail "there is no $toolchain; set ANDROID_NDK to the folder of an Android NDK"
command -v cmake >/dev/null || fail "cmake is not installed; install CMake 3.19 or later"
command -v gradle >/dev/null || fail "gradle is not installed; install Gradle 8 or later"

gradle --quiet --project-dir "$here/android" unpack || fail "gradle cannot fetch the libraries; its messages are above"
# The C++ library goes into the program, so that it does not meet another one among the pushed libraries.
cmake -S "$here" -B "$build" \
    -DCMAKE_TOOLCHAIN_FILE="$toolchain" -DANDROID_ABI=arm64-v8a -DANDROID_PLATFORM=android-31 -DANDROID_STL=c++_static \
    -DCMAKE_BUILD_TYPE=Release -DDQ_ONNXRUNTIME="$here/android/build/phone" || fail "cmake cannot configure; its messages are above"
cmake --build "$build" --target dq-run --parallel || fail "the build failed; its messages are above"
echo "$build/dq-run"
