"""docs/GPU.md: the command for a cluster's scheduler does what it says, and the table of memory is the estimate's."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.gpu_memory import row_of

from dq_toolchain.toolchain.formats.artifact import Artifact
from tests.tiny import write_tiny_model

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "GPU.md").read_text(encoding="utf-8")
RECIPE = """
[sampler]
steps = 3
[calibrate]
samples = 8
batch = 4
warmup = 2
settling = 2
group_iterations = 1
[reference]
seeds = 2
[run]
device = "cpu"
"""
SRUN = """#!/bin/bash
for i in 0 1; do SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & all+=($!); done
for one in "${all[@]}"; do wait "$one" || exit 1; done
"""
"""Slurm's own with one node of two tasks."""


WRITES = 'echo "$WORLD_SIZE $RANK $LOCAL_RANK $MASTER_ADDR"'


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.slow
def test_the_command_for_slurm(tmp_path: Path) -> None:
    """With stand-ins for Slurm's programs: two processes, on a CPU, that share one calibration."""
    (script,) = re.findall(r"^```bash\n(#!/bin/bash\n#SBATCH.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        script = script.replace("29500", str(free.getsockname()[1]))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    model, out = write_tiny_model(tmp_path / "model"), tmp_path / "out"
    script = script.replace("FOLDER", str(model)).replace("--out OUT", f"--recipe {tmp_path}/recipe.toml --out {out}")
    tools = tmp_path / "bin"
    tools.mkdir()
    program(tools / "srun", SRUN)
    program(tools / "scontrol", "#!/bin/bash\n[ \"$*\" = 'show hostnames one' ] && echo 127.0.0.1\n")
    program(
        tools / "dq-toolchain",
        f'#!/bin/bash\n{WRITES} >> {tmp_path}/ranks\nexec {sys.executable} -m dq_toolchain "$@"\n',
    )
    environment = os.environ | {
        "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "one", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert Artifact.load(out / "calibration").record["device"] == "cpu"
    assert sorted((tmp_path / "ranks").read_text().splitlines()) == ["2 0 0 127.0.0.1", "2 1 1 127.0.0.1"]


@pytest.mark.slow
def test_the_table_of_memory_is_the_estimate_of_calibrate() -> None:
    """One of its rows; `python -m benchmarks.gpu_memory` prints all of them."""
    assert row_of("sd15") in PAGE.splitlines()
