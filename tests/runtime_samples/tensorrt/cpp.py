"""The fakes of TensorRT and CUDA for the C++ program, and bundles with plans for them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from tests.runtime_samples.tensorrt.programs import GOLDEN

FAKE = Path(__file__).parent / "fake"
SANITIZE = (
    "-std=c++17",
    "-O1",
    "-g0",
    "-fPIC",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-Wall",
    "-Wextra",
    "-Werror",
)
FIRST_SCRATCH = 1000


def call(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=os.environ | environment
    )


def must(*command: object) -> None:
    done = call(*command)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"


def build_fakes(root: Path, *flags: str) -> Path:
    """A folder with include/ and lib/, as TensorRT and CUDA have them."""
    shutil.copytree(FAKE, root / "include", ignore=shutil.ignore_patterns("*.cpp"))
    lib = root / "lib"
    lib.mkdir()
    must("g++", *flags, "-shared", FAKE / "fake_cuda.cpp", "-o", lib / "libcudart.so")
    must("g++", *flags, "-shared", FAKE / "fake_tensorrt.cpp", "-o", lib / "libnvinfer.so", f"-L{lib}", "-lcudart")
    return root


def bundle_of(case: str, folder: Path) -> Path:
    """A golden bundle for target tensorrt, with plans that replay the golden answers; scratch memory grows from plan to plan."""
    shutil.copytree(GOLDEN / case / "bundle", folder / "bundle")
    path = folder / "bundle" / "bundle.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"target": "tensorrt"}))
    for name, tensor in load_file(GOLDEN / case / "replay.safetensors").items():
        (folder / f"{name}.f32").write_bytes(tensor.astype("<f4").tobytes())
    (folder / "bundle" / "engines").mkdir()
    methods: list[str] = data["methods"]
    for number, method in enumerate(methods):
        (folder / "bundle" / "engines" / f"{method}.plan").write_text(plan_of(folder, data, FIRST_SCRATCH + number))
    return folder / "bundle"


def plan_of(replay: Path, data: dict[str, Any], scratch: int) -> str:
    """What the fake TensorRT reads as an engine."""
    rows = [("in", port) for port in data["inputs"]] + [("out", port) for port in data["outputs"]]
    tensors = [
        " ".join(map(str, [kind, port["name"], port["dtype"], len(port["shape"]), *port["shape"]]))
        for kind, port in rows
    ]
    return "\n".join([f"replay {replay}", f"warm_ups {len(data['methods'])}", f"scratch {scratch}", *tensors, ""])
