#!/usr/bin/env bash
# Runs a bundle on the NPU of the phone that adb is connected to, and fetches the report.
#
#   android/run.sh DQ_RUN LIBRARIES BUNDLE REPORT [--soc CHIP] [--seeds N] [--steps N] [--guidance W] [--teacher-forced on|off]
#
# DQ_RUN is what android/build.sh built, LIBRARIES what it unpacked: android/build/phone/jni/arm64-v8a. --soc is the phone's own
# chip unless given. ANDROID_SERIAL chooses among several phones. REPORT is a folder on this machine; judge it with
# `dq-toolchain validate REPORT --bundle BUNDLE`.
set -euo pipefail

fail() {
    echo "android/run.sh: $1" >&2
    exit 2
}

[ $# -ge 4 ] || fail "got $# arguments, at least 4 are needed; name dq-run, the folder of libraries, the bundle and the report"
program="$1" libraries="$2" bundle="$3" report="$4"
shift 4
[ -f "$program" ] || fail "there is no $program; build it with android/build.sh"
[ -f "$libraries/libonnxruntime_providers_qnn.so" ] || fail "$libraries has no libonnxruntime_providers_qnn.so; name android/build/phone/jni/arm64-v8a"
[ -f "$bundle/bundle.json" ] || fail "$bundle is no bundle (it has no bundle.json); name what dq-toolchain export wrote"
command -v adb >/dev/null || fail "adb is not installed; install Android's platform tools"
[ "$(adb get-state 2>/dev/null)" = device ] || fail "adb reaches no phone, or several; connect one, allow debugging, or set ANDROID_SERIAL"

# The phone's shell takes the arguments apart again.
options="" soc="" next=""
for word in "$@"; do
    case "$word" in
    *[!A-Za-z0-9.-]* | "") fail "unknown argument '$word'; allowed are --soc, --seeds, --steps, --guidance and --teacher-forced" ;;
    esac
    if [ "$next" = --soc ]; then soc="$word"; elif [ "$word" != --soc ]; then options="$options $word"; fi
    next="$word"
done
[ "$next" != --soc ] || fail "--soc needs a value; name a chip, or leave it out for the phone's own"
system="$(adb shell getprop ro.build.version.sdk | tr -d '\r')"
case "$system" in
'' | *[!0-9]*) fail "the phone does not say its version of Android (got '$system'); look at adb shell getprop" ;;
esac
[ "$system" -ge 31 ] || fail "the phone has Android API level $system, Qualcomm's plugin needs 31 (Android 12) or later"
chip="$(adb shell getprop ro.soc.model | tr -d '\r')"
soc="${soc:-$chip}"
[ -d "$bundle/$soc" ] || fail "the bundle has no contexts for $soc (the phone's chip is $chip); export it with --soc $soc"

# Programs may be executed here, unlike on the shared storage.
phone="/data/local/tmp/dq-run.$$"
adb shell "mkdir -p $phone/bundle $phone/lib" || fail "cannot make $phone on the phone; look at adb shell"
trap 'adb shell "rm -rf $phone" >/dev/null 2>&1 || true' EXIT
adb push "$program" "$phone/dq-run" >/dev/null || fail "cannot push $program; is there space on the phone?"
# Stub and Skel of every chip; not libQnnHtpPrepare.so, the compiler.
for file in "$libraries"/libonnxruntime.so "$libraries"/libonnxruntime_providers_qnn.so "$libraries"/libQnnSystem.so \
    "$libraries"/libQnnHtp.so "$libraries"/libQnnHtpV*Stub.so "$libraries"/libQnnHtpV*Skel.so; do
    [ -f "$file" ] || fail "there is no $file; run android/build.sh, which unpacks it"
    adb push "$file" "$phone/lib/" >/dev/null || fail "cannot push $file; is there space on the phone?"
done
adb push "$bundle/." "$phone/bundle/" >/dev/null || fail "cannot push $bundle; is there space on the phone?"
# LD_LIBRARY_PATH for what the processor loads, with the vendor's libcdsprpc.so; ADSP_LIBRARY_PATH for what the DSP loads (Skel).
adb shell "chmod 755 $phone/dq-run && cd $phone && LD_LIBRARY_PATH='$phone/lib:/vendor/lib64' \
ADSP_LIBRARY_PATH='$phone/lib;/vendor/dsp/cdsp;/vendor/lib/rfsa/adsp;/system/lib/rfsa/adsp' \
$phone/dq-run --bundle $phone/bundle --report $phone/report --soc $soc --qnn-library $phone/lib/libonnxruntime_providers_qnn.so$options" ||
    fail "dq-run did not write a report; its message is above"
mkdir -p "$report" || fail "cannot make $report; name a folder that you may write to"
rm -f "$report/report.json"
# report.json last: a report without it does not count.
for name in report.safetensors report.json; do
    adb pull "$phone/report/$name" "$report/.$name.tmp" >/dev/null || fail "cannot pull $name; connect the phone and run again"
    mv "$report/.$name.tmp" "$report/$name" || fail "cannot write $report/$name; name a folder that you may write to"
done
echo "$report"
