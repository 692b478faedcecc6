#!/usr/bin/env bash
# Runs a bundle on the phone that adb is connected to, and fetches the report.
#
#   android/run.sh DQ_RUN BUNDLE REPORT [--seeds N] [--teacher-forced on|off]
#
# ANDROID_SERIAL chooses among several phones. REPORT is a folder on this machine; judge it with
# `dq-toolchain validate REPORT --bundle BUNDLE`.
set -euo pipefail

fail() {
    echo "android/run.sh: $1" >&2
    exit 2
}

[ $# -ge 3 ] || fail "got $# arguments, at least 3 are needed; name dq-run, the bundle and the report"
program="$1" bundle="$2" report="$3"
shift 3
[ -f "$program" ] || fail "there is no $program; build it with android/build.sh"
[ -f "$bundle/bundle.json" ] || fail "$bundle is no bundle (it has no bundle.json); name what dq-toolchain export wrote"
command -v adb >/dev/null || fail "adb is not installed; install Android's platform tools"
[ "$(adb get-state 2>/dev/null)" = device ] || fail "adb reaches no phone, or several; connect one, allow debugging, or set ANDROID_SERIAL"

# The phone's shell takes the arguments apart again.
options=""
for word in "$@"; do
    case "$word" in
    *[!A-Za-z0-9-]* | "") fail "unknown argument '$word'; allowed are --seeds N and --teacher-forced on|off" ;;
    esac
    options="$options $word"
done

# Programs may be executed here, unlike on the shared storage.
phone="/data/local/tmp/dq-run.$$"
adb shell "mkdir -p $phone/bundle" || fail "cannot make $phone on the phone; look at adb shell"
trap 'adb shell "rm -rf $phone" >/dev/null 2>&1 || true' EXIT
adb push "$program" "$phone/dq-run" >/dev/null || fail "cannot push $program; is there space on the phone?"
adb push "$bundle/." "$phone/bundle/" >/dev/null || fail "cannot push $bundle; is there space on the phone?"
adb shell "chmod 755 $phone/dq-run && $phone/dq-run --bundle $phone/bundle --report $phone/report$options" ||
    fail "dq-run did not write a report; its message is above"
mkdir -p "$report" || fail "cannot make $report; name a folder that you may write to"
rm -f "$report/report.json"
# report.json last: a report without it does not count.
for name in report.safetensors report.json; do
    adb pull "$phone/report/$name" "$report/.$name.tmp" >/dev/null || fail "cannot pull $name; connect the phone and run again"
    mv "$report/.$name.tmp" "$report/$name" || fail "cannot write $report/$name; name a folder that you may write to"
done
echo "$report"
