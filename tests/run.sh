#!/usr/bin/env bash
# tests/run.sh [style|types|tests|slow] [arguments of pytest]
# One part of the gate; without a part: style, then types and tests side by side. `slow` is what the fast run leaves out,
# `slow --collect-only` lists it by what it proves.
set -euo pipefail
cd "$(dirname "$0")/.."

style() {
    ruff check --no-cache .  # what sorts imports depends on which folders there are, which its cache does not notice
    ruff format --no-cache --check .
    lint-imports
    NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet  # links between pages, and what the API reference names
}

types() {
    mypy -p dq_toolchain -p tests -p benchmarks -p scripts
    MYPYPATH=runtime_samples/tensorrt/python mypy --strict --python-version 3.10 runtime_samples/tensorrt/python
}

tests() { # two groups of files at a time (tests/conftest.py), one thread each: small operations only wait for the threads of others
    local processes=2
    [[ " $* " != *" --collect-only "* ]] || processes=0  # its list is of one process
    OMP_NUM_THREADS=1 python -m pytest -q -n $processes --dist loadgroup --no-loadscope-reorder "$@"
}

part="${1:-}"
case "$part" in
style | types | tests)
    shift
    "$part" "$@"
    ;;
slow)
    shift
    tests -m slow "$@"
    ;;
*)
    style
    said="$(mktemp)"
    trap 'rm -f "$said"' EXIT
    types > "$said" 2>&1 &
    typing=$!
    code=0
    tests "$@" || code=$?
    wait "$typing" || code=$?
    cat "$said"
    exit "$code"
    ;;
esac
