#!/usr/bin/env bash
# Cross-compiles dq-run, and with libpng dq-generate, for Android, arm64-v8a, with ExecuTorch from its sources or from an
# install tree for the same target.
#
#   ANDROID_NDK=FOLDER [LIBPNG=FOLDER] android/build.sh EXECUTORCH [BUILD_FOLDER]
#
# LIBPNG is a source tree of libpng 1.6; the NDK has the zlib that it needs.
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
libpng="" targets="dq-run"
if [ -n "${LIBPNG:-}" ]; then
    libpng="$(cd "$LIBPNG" 2>/dev/null && pwd)" || fail "there is no folder $LIBPNG; set LIBPNG to a source tree of libpng"
    [ -f "$libpng/png.h" ] || fail "$libpng is no source tree of libpng (it has no png.h); set LIBPNG to one"
    targets="dq-run dq-generate"
fi
command -v cmake >/dev/null || fail "cmake is not installed; install CMake 3.25 or later"

# The C++ library goes into each program, so that one file is all that has to be pushed.
cmake -S "$here" -B "$build" \
    -DCMAKE_TOOLCHAIN_FILE="$toolchain" -DANDROID_ABI=arm64-v8a -DANDROID_PLATFORM=android-28 -DANDROID_STL=c++_static \
    -DCMAKE_BUILD_TYPE=Release -DDQ_EXECUTORCH="$executorch" -DDQ_LIBPNG="$libpng" || fail "cmake cannot configure; its messages are above"
# shellcheck disable=SC2086  # two names
cmake --build "$build" --target $targets --parallel || fail "the build failed; its messages are above"
for target in $targets; do echo "$build/$target"; done
[ -n "$libpng" ] || echo "android/build.sh: dq-generate was not built; set LIBPNG to a source tree of libpng for it" >&2
