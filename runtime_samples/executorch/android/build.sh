#!/usr/bin/env bash
# Cross-compiles dq-run for Android, arm64-v8a, with ExecuTorch from its sources or from an install tree for the same target.
#
#   ANDROID_NDK=FOLDER android/build.sh EXECUTORCH [BUILD_FOLDER]
#
# EXECUTORCH is a checkout of ExecuTorch 1.5 with its submodules, or where such a build was installed. A build from
# sources needs a Python with ExecuTorch's build requirements, which generate code.
set -euo pipefail

fail() {
    echo "android/build.sh: $1" >&2
    exit 2
}

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
[ $# -ge 1 ] && [ $# -le 2 ] || fail "got $# arguments, 1 or 2 are allowed; name an ExecuTorch source or install tree, then a build folder"
executorch="$(cd "$1" 2>/dev/null && pwd)" || fail "there is no folder $1; name an ExecuTorch source or install tree"
build="${2:-$here/build/android}"
[ -n "${ANDROID_NDK:-}" ] || fail "ANDROID_NDK is not set; set it to the folder of an Android NDK, r26 or later"
toolchain="$ANDROID_NDK/build/cmake/android.toolchain.cmake"
[ -f "$toolchain" ] || fail "there is no $toolchain; set ANDROID_NDK to the folder of an Android NDK"
command -v cmake >/dev/null || fail "cmake is not installed; install CMake 3.25 or later"

# The C++ library goes into the program, so that one file is all that has to be pushed.
cmake -S "$here" -B "$build" \
    -DCMAKE_TOOLCHAIN_FILE="$toolchain" -DANDROID_ABI=arm64-v8a -DANDROID_PLATFORM=android-28 -DANDROID_STL=c++_static \
    -DCMAKE_BUILD_TYPE=Release -DDQ_EXECUTORCH="$executorch" || fail "cmake cannot configure; its messages are above"
cmake --build "$build" --target dq-run --parallel || fail "the build failed; its messages are above"
echo "$build/dq-run"
