#!/usr/bin/env bash
# Set up dq-toolchain in the virtual environment .venv:   . ./setup.sh [EXTRAS]     e.g.  . ./setup.sh executorch,dev
# On a machine without an NVIDIA GPU it asks for the CPU build of torch, and never for gigabytes of CUDA.
# Versions are those of constraints.txt, which tells how to refresh it; pyproject.toml alone allows newer ones.

_dq_setup() {
    local extras="${1:-executorch}" python
    python="$(command -v python3.11 || command -v python3.12 || command -v python3)" || { echo "setup: no python3 found" >&2; return 2; }
    [ -x .venv/bin/python ] || "$python" -m venv .venv || return 2
    # shellcheck disable=SC1091
    . .venv/bin/activate || return 2
    if ! python -c 'import torch' 2>/dev/null; then
        if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null; then
            # The CPU build where the configured index or a local wheel has it, else by uv, which knows PyTorch's own CPU index.
            pip install --quiet -c constraints.txt "torch==2.13.0+cpu" 2>/dev/null || {
                pip install --quiet uv && uv pip install --quiet --torch-backend=cpu "torch==2.13.0"
            } || { echo "setup: no CPU build of torch 2.13 found; install one as pytorch.org tells (Linux, Pip, CPU) and run again" >&2; return 2; }
        else
            pip install --quiet -c constraints.txt "torch==2.13.*" || return 2
        fi
    fi
    pip install --quiet -c constraints.txt -e ".[$extras]"
}
_dq_setup "$@"
