#!/usr/bin/env bash
# The test command: style, types, dependency rules, then the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff check .
mypy -p dq_toolchain
mypy tests benchmarks scripts
lint-imports
python -m pytest -q "$@"
