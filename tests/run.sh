#!/usr/bin/env bash
# The test command: style, types, dependency rules, then the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff check .
ruff format --check .
mypy -p dq_toolchain
mypy tests benchmarks scripts
MYPYPATH=runtime_samples/tensorrt/python mypy --strict --python-version 3.10 runtime_samples/tensorrt/python
lint-imports
# Two files at a time, one thread each: small operations only wait for the threads of others.
OMP_NUM_THREADS=1 python -m pytest -q -n 2 --dist loadfile "$@"
