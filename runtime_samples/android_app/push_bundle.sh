#!/usr/bin/env bash
# Pushes a bundle to the app on the phone that adb is connected to.
#
#   ./push_bundle.sh BUNDLE [NAME]
#
# NAME is what the app shows (default: the folder's name). Start the app once before: Android makes its folder then.
# ANDROID_SERIAL chooses among several phones.
set -euo pipefail

fail() {
    echo "push_bundle.sh: $1" >&2
    exit 2
}

[ $# -ge 1 ] && [ $# -le 2 ] || fail "got $# arguments, 1 or 2 are allowed; name the bundle, then a name for it"
bundle="$1"
name="${2:-$(basename "$(cd "$1" 2>/dev/null && pwd)")}"
[ -f "$bundle/bundle.json" ] || fail "$bundle is no bundle (it has no bundle.json); name what dq-toolchain export wrote"
[ -f "$bundle/pipeline.json" ] || fail "$bundle holds a network alone, without text encoder and decoder; export the whole pipeline"
case "$name" in
.* | *[!A-Za-z0-9._-]* | "") fail "the name must be of letters, digits, '.', '_' and '-', and not begin with '.', got '$name'; give another one" ;;
esac
command -v adb >/dev/null || fail "adb is not installed; install Android's platform tools"
[ "$(adb get-state 2>/dev/null)" = device ] || fail "adb reaches no phone, or several; connect one, allow debugging, or set ANDROID_SERIAL"

folder="/sdcard/Android/data/org.dqtoolchain.draw/files/bundles"
adb shell "[ -d $folder ]" || fail "there is no $folder on the phone; install the app and start it once"
# The app does not show a name that begins with a dot: half a bundle is never drawn with.
trap 'adb shell "rm -rf $folder/.$name" >/dev/null 2>&1 || true' EXIT
adb shell "rm -rf $folder/.$name && mkdir $folder/.$name" || fail "cannot make a folder in $folder; look at adb shell"
adb push "$bundle/." "$folder/.$name/" >/dev/null || fail "cannot push $bundle; is there space on the phone?"
adb shell "rm -rf $folder/$name && mv $folder/.$name $folder/$name" || fail "cannot replace $folder/$name; look at adb shell"
echo "$folder/$name"
