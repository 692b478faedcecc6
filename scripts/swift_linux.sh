#!/usr/bin/env bash
# Builds and tests the Swift packages on Linux, in a Debian 13 folder that has the Swift compiler. Root and 3 GB of disk.
#
#     scripts/swift_linux.sh [FOLDER]            toolchain in FOLDER (default .swift), made if it is not there; build, test
#     scripts/swift_linux.sh [FOLDER] --setup    make the toolchain only
#     scripts/swift_linux.sh [FOLDER] -- COMMAND...   run a command inside, in the folder of the packages, e.g. a replay
#
# DEBIAN_MIRROR: where to get Debian from; default: the mirror in this system's apt sources, else debootstrap's own.
# SWIFT_BIND: folders separated by colons that commands inside see under the same path.
set -euo pipefail

root="$(cd "$(dirname "$0")/.." && pwd)"
packages=(swift_core coreml coreai ios_app)
folder="$root/.swift"
mode=test

fail() { echo "swift_linux: $*" >&2; exit 2; }

[[ $(id -u) -eq 0 ]] || fail "root is needed for chroot, this is user $(id -un); run with sudo"
if [[ -z ${SWIFT_LINUX_INNER:-} ]]; then
  unshare --mount true 2>/dev/null || fail "this root may not mount (unshare --mount failed); run outside of the container"
  SWIFT_LINUX_INNER=1 exec unshare --mount --propagation private "${BASH_SOURCE[0]}" "$@"
fi

if [[ $# -gt 0 && $1 != --* ]]; then folder="$1"; shift; fi
case "${1:-}" in
  "") ;;
  --setup) [[ $# -eq 1 ]] || fail "--setup takes no more arguments, got: ${*:2}; leave them out"; mode=setup ;;
  --) mode=command; shift; [[ $# -gt 0 ]] || fail "-- needs a command to run inside; give one, e.g. -- swift --version" ;;
  *) fail "got the argument $1, allowed are FOLDER, --setup and -- COMMAND; see the head of this script" ;;
esac

mirror() {
  if [[ -n "${DEBIAN_MIRROR:-}" ]]; then echo "$DEBIAN_MIRROR"; return; fi
  cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
    grep -Eo '^(deb|URIs:) .*' | grep -Eo 'https?://[^ ]*/debian/?( |$)' | head -n 1 | tr -d ' ' || true
}

# In a mount namespace of its own (see below), so what is mounted goes with this process, however it ends.
mount_proc() { mount -t proc proc "$folder/proc" || fail "cannot mount /proc in $folder; run where root may mount"; }

bind() {
  [[ -d $1 ]] || fail "SWIFT_BIND: $1 is no folder; name folders that exist"
  mkdir -p "$folder$1"
  mount --bind "$1" "$folder$1" || fail "cannot bind $1 into $folder; run where root may mount"
}

inside() {
  env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 LD_LIBRARY_PATH=/usr/libexec/swift/lib/swift/linux \
    DEBIAN_FRONTEND=noninteractive chroot "$folder" "$@"
}

setup() {
  command -v debootstrap >/dev/null || fail "debootstrap is missing; install the package debootstrap"
  local from; from="$(mirror)"
  local -a source=(); [[ -n $from ]] && source=("$from")
  echo "swift_linux: making $folder from Debian trixie (minutes, 3 GB)"
  if [[ ! -e $folder/.bootstrapped ]]; then
    [[ ! -e $folder ]] || [[ -z $(ls -A "$folder") ]] ||
      fail "$folder is not empty and no finished toolchain; remove it or name another folder"
    debootstrap --variant=minbase trixie "$folder" "${source[@]}" >"$folder.log" 2>&1 ||
      fail "debootstrap failed, its last line: $(tail -n 1 "$folder.log"); check the network, or set DEBIAN_MIRROR"
    touch "$folder/.bootstrapped"; rm -f "$folder.log"
    [[ -e $folder/etc/resolv.conf ]] || cp /etc/resolv.conf "$folder/etc/resolv.conf"
  fi
  folder="$(realpath "$folder")"
  mount_proc
  { inside apt-get update -q && inside apt-get install -y -q --no-install-recommends \
      swiftlang libc6-dev libstdc++-14-dev git; } >"$folder/install.log" 2>&1 ||
    fail "swiftlang was not installed, last line: $(tail -n 1 "$folder/install.log"); check the network, then run this again"
  inside apt-get clean
  touch "$folder/.swift-ready"
}

# The packages are copied, never built in place: a build folder of Linux would confuse Xcode, and sources stay read-only.
copy_in() {
  rm -rf "$folder/dq"  # with what was built: a changed interface leaves stale objects in an incremental build
  mkdir -p "$folder/dq"
  tar -C "$root/runtime_samples" --exclude=.build -cf - golden "${packages[@]}" | tar -C "$folder/dq" -xf -
}

# swift_in PACKAGE ARGUMENTS [VARIABLE=VALUE...]: warnings are errors.
swift_in() { inside env "${@:3}" sh -c "cd /dq/$1 && swift $2 -Xswiftc -warnings-as-errors"; }

[[ -e $folder/.swift-ready ]] || setup
folder="$(realpath "$folder")"
[[ $mode != setup ]] || exit 0
exec 9>"$folder/.lock"
flock 9  # one build at a time: the packages inside are one copy
mountpoint -q "$folder/proc" || mount_proc
[[ -z ${SWIFT_BIND:-} ]] || while IFS= read -r -d : path; do bind "$path"; done <<<"$SWIFT_BIND:"
if [[ $mode == command ]]; then
  [[ -d $folder/dq/${packages[0]} ]] || copy_in
  inside sh -c 'cd /dq && exec "$@"' sh "$@"
  exit
fi
copy_in
swift_in swift_core build
swift_in swift_core test
# The runtimes as they are on Linux, almost empty; then with stand-ins for them, which compiles and tests the rest.
for package in "${packages[@]:1}"; do
  swift_in "$package" build
  swift_in "$package" "test --scratch-path .build/stand-in" DQ_STAND_IN=1
done
