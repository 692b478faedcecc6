#!/usr/bin/env bash
# Runs a bundle on the phone that adb is connected to, and fetches the report; or draws the picture of a prompt, and fetches that.
#
#   android/run.sh DQ_RUN BUNDLE REPORT [--seeds N] [--teacher-forced on|off]
#   android/run.sh DQ_GENERATE BUNDLE PICTURE.png --prompt TEXT [--negative-prompt TEXT] [--seed N] ...
#
# ANDROID_SERIAL chooses among several phones. REPORT is a folder on this machine; judge it with
# `dq-toolchain validate REPORT --bundle BUNDLE`. A name that ends with .png asks for a picture; DQ_GENERATE --help lists its options.
set -euo pipefail

fail() {
    echo "android/run.sh: $1" >&2
    exit 2
}

[ $# -ge 3 ] || fail "got $# arguments, at least 3 are needed; name the program, the bundle, and the report or the picture"
program="$1" bundle="$2" out="$3"
shift 3
name="$(basename "$program")"
case "$out" in
*.png) wanted="dq-generate" ;;
*) wanted="dq-run" ;;
esac
[ "$name" = "$wanted" ] || fail "$out is written by $wanted, got $name; dq-run writes a folder, dq-generate a name that ends with .png"
[ -f "$program" ] || fail "there is no $program; build it with android/build.sh"
[ -f "$bundle/bundle.json" ] || fail "$bundle is no bundle (it has no bundle.json); name what dq-toolchain export wrote"
command -v adb >/dev/null || fail "adb is not installed; install Android's platform tools"
[ "$(adb get-state 2>/dev/null)" = device ] || fail "adb reaches no phone, or several; connect one, allow debugging, or set ANDROID_SERIAL"

# The phone's shell takes the arguments apart again, so each is quoted for it.
options="" apostrophe="'" escaped="'\\''"
for word in "$@"; do
    case "$wanted $word" in
    *" --out" | *" --latents" | *" --bundle" | *" --report") fail "$word is not for this script, which chooses the place on the phone; leave it out" ;;
    esac
    options="$options '${word//$apostrophe/$escaped}'"
done

# Programs may be executed here, unlike on the shared storage.
phone="/data/local/tmp/$wanted.$$"
adb shell "mkdir -p $phone/bundle" || fail "cannot make $phone on the phone; look at adb shell"
trap 'adb shell "rm -rf $phone" >/dev/null 2>&1 || true' EXIT
adb push "$program" "$phone/$wanted" >/dev/null || fail "cannot push $program; is there space on the phone?"
adb push "$bundle/." "$phone/bundle/" >/dev/null || fail "cannot push $bundle; is there space on the phone?"
start="chmod 755 $phone/$wanted && $phone/$wanted --bundle $phone/bundle"

if [ "$wanted" = dq-generate ]; then
    adb shell "$start --out $phone/picture.png$options" || fail "dq-generate drew no picture; its message is above"
    adb pull "$phone/picture.png" "$out.tmp" >/dev/null || fail "cannot pull the picture; connect the phone and run again"
    mv "$out.tmp" "$out" || fail "cannot write $out; name a place that you may write to"
    echo "$out"
    exit
fi

adb shell "$start --report $phone/report$options" || fail "dq-run did not write a report; its message is above"
mkdir -p "$out" || fail "cannot make $out; name a folder that you may write to"
rm -f "$out/report.json"
# report.json last: a report without it does not count.
for name in report.safetensors report.json; do
    adb pull "$phone/report/$name" "$out/.$name.tmp" >/dev/null || fail "cannot pull $name; connect the phone and run again"
    mv "$out/.$name.tmp" "$out/$name" || fail "cannot write $out/$name; name a folder that you may write to"
done
echo "$out"
