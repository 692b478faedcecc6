"""The fakes of TensorRT and CUDA for the C++ program, and bundles with plans for them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from dq_toolchain.backends.tensorrt.deploy.made_of import made_of
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
    data = json.loads((folder / "bundle" / "bundle.json").read_text())
    write_bundle(folder / "bundle", data, {method: f"model/{method}" for method in data["methods"]})
    for name, tensor in load_file(GOLDEN / case / "replay.safetensors").items():
        (folder / f"{name}.f32").write_bytes(tensor.astype("<f4").tobytes())
    methods: list[str] = data["methods"]
    for number, method in enumerate(methods):
        (folder / "bundle" / "engines" / f"{method}.plan").write_text(plan_of(folder, data, FIRST_SCRATCH + number))
    return folder / "bundle"


def write_bundle(bundle: Path, data: dict[str, Any], graphs: Mapping[str, str]) -> None:
    """bundle.json for target tensorrt, with ``graphs``, a place for each engine, and in engines/ what each was made of."""
    files = dict(data["files"])
    for place in graphs.values():
        for file in (f"{place}.onnx", f"{Path(place).parent.as_posix()}/weights.bin"):
            (bundle / file).parent.mkdir(exist_ok=True)
            (bundle / file).write_text(f"made up: {file}")
            files[file] = hashlib.sha256((bundle / file).read_bytes()).hexdigest()
    (bundle / "bundle.json").write_text(json.dumps(data | {"target": "tensorrt", "files": files}))
    (bundle / "engines").mkdir(exist_ok=True)
    for name in graphs:
        (bundle / "engines" / f"{name}.made_of").write_text(made_of(name, files))


def give_other_weights(bundle: Path, file: str) -> None:
    """What a further export changes: ``file``, and its hash in bundle.json."""
    (bundle / file).write_text("others")
    data = json.loads((bundle / "bundle.json").read_text())
    data["files"][file] = hashlib.sha256((bundle / file).read_bytes()).hexdigest()
    (bundle / "bundle.json").write_text(json.dumps(data))


def plan_of(replay: Path, data: dict[str, Any], scratch: int) -> str:
    """What the fake TensorRT reads as an engine."""
    rows = [("in", port) for port in data["inputs"]] + [("out", port) for port in data["outputs"]]
    tensors = [
        " ".join(map(str, [kind, port["name"], port["dtype"], len(port["shape"]), *port["shape"]]))
        for kind, port in rows
    ]
    return "\n".join([f"replay {replay}", f"warm_ups {len(data['methods'])}", f"scratch {scratch}", *tensors, ""])


def generate_bundle_of(case: str, folder: Path) -> Path:
    """A golden bundle of a whole pipeline for target tensorrt, with plans that replay the golden answers of all its parts."""
    source = GOLDEN / "generate" / case
    bundle = Path(shutil.copytree(source / "bundle", folder / "bundle"))
    data = json.loads((bundle / "bundle.json").read_text())
    methods = [f"steps_g{group}" for group in range(len(data["step_groups"]))]
    tensors = load_file(source / "replay.safetensors")
    for name, tensor in tensors.items():
        integers = tensor.dtype == np.int64
        (folder / f"{name}.{'i64' if integers else 'f32'}").write_bytes(
            tensor.astype("<i8" if integers else "<f4").tobytes()
        )
    engines, parts = bundle / "engines", [path.stem for path in (bundle / "parts").glob("*.bin")]
    graphs = {method: f"model/{method}" for method in methods} | {part: f"parts/{part}.graph/{part}" for part in parts}
    write_bundle(bundle, data | {"methods": methods}, graphs)
    for number, method in enumerate(methods):
        (engines / f"{method}.plan").write_text(plan_of(folder, data | {"methods": []}, FIRST_SCRATCH + number))
    about = json.loads((bundle / "pipeline.json").read_text())
    given = {"decoder": ("latents",), "vae_encoder": ("picture",)}
    rows = [("decoder", ["picture"]), *((each["name"], each["outputs"]) for each in about["encoders"])]
    if "image_to_image" in about:
        rows.append(("vae_encoder", about["image_to_image"]["outputs"]))
    for part, outputs in rows:
        inputs = given.get(part, ("ids",))
        ports = {f"in {name}": tensors[f"{part}.{name}"].shape[1:] for name in inputs}
        ports |= {f"out {name}": tensors[f"{part}.{name}"].shape[1:] for name in reversed(outputs)}
        (engines / f"{part}.plan").write_text(plan_of_part(folder, part, ports, FIRST_SCRATCH))
    return bundle


def plan_of_part(replay: Path, part: str, ports: Mapping[str, Sequence[int]], scratch: int) -> str:
    """What the fake TensorRT reads as an engine of a part. ``ports``: "in NAME" or "out NAME" -> axes without the first."""
    rows = [
        " ".join(map(str, [port, "int64" if port == "in ids" else "float32", len(axes) + 1, 1, *axes]))
        for port, axes in ports.items()
    ]
    return "\n".join([f"replay {replay}", f"part {part}", f"scratch {scratch}", *rows, ""])
