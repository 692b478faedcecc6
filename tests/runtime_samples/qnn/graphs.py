"""A tiny bundle in the form that the NPU takes: uint16 in and out of every product, int8 weights per channel, float between.

Two step groups have other activation scales and the same weights. The graphs take step vectors in the place of the timestep.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from diffusers import DDIMScheduler
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from dq_toolchain.backends.common.onnx.session import open_session
from dq_toolchain.toolchain.disk.files import sha256, write_tensors
from dq_toolchain.toolchain.formats.bundle import Bundle, Port
from dq_toolchain.toolchain.formats.bundle_checks import STEP_VECTORS
from dq_toolchain.toolchain.formats.reference import FILE, Reference
from dq_toolchain.toolchain.sampler.conditioning import Conditioning
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.sampler.step_groups import even_step_groups
from dq_toolchain.toolchain.verdict.limits import limits_for

CHANNELS, SIDE, WIDTH, CALLS, GROUPS, SEEDS = 2, 8, 4, 4, 2, 2
HIDDEN = 8
RANGES = (8.0, 6.0)
"""Half the width of every activation's range, by step group."""


class _Builder:
    def __init__(self, half: float) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.half = half

    def constant(self, name: str, value: np.ndarray[Any, Any]) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def quantized(self, x: str) -> str:
        """uint16 with zero point 32768, and back."""
        scale = self.constant(f"{x}.scale", np.array(self.half / 32768, np.float32))
        zero = self.constant(f"{x}.zero", np.array(32768, np.uint16))
        self.node("QuantizeLinear", [x, scale, zero], f"{x}.q")
        return self.node("DequantizeLinear", [f"{x}.q", scale, zero], f"{x}.dq")

    def weight(self, name: str, shape: tuple[int, ...], seed: int) -> str:
        """int8, a scale per output channel."""
        integers = np.random.default_rng(seed).integers(-127, 128, size=shape).astype(np.int8)
        scale = np.full(shape[0], 0.0015, np.float32) * np.linspace(0.5, 1.0, shape[0], dtype=np.float32)
        given = [self.constant(f"{name}.q", integers), self.constant(f"{name}.scale", scale)]
        given.append(self.constant(f"{name}.zero", np.zeros(shape[0], np.int8)))
        return self.node("DequantizeLinear", given, name, axis=0)


def _graph(half: float, path: Path) -> None:
    b = _Builder(half)
    kernel = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    b.node("Conv", [b.quantized("sample"), b.weight("w_in", (HIDDEN, CHANNELS, 3, 3), 1)], "conv_in", **kernel)
    b.node("Gemm", [b.quantized("step_vectors"), b.weight("w_time", (HIDDEN, WIDTH), 2)], "time", transB=1)
    shape = b.constant("shape", np.array([1, HIDDEN, 1, 1], np.int64))
    b.node("Reshape", [b.quantized("time"), shape], "time_4d")
    b.node("Add", [b.quantized("conv_in"), "time_4d"], "sum")
    b.node("Sigmoid", ["sum"], "gate")
    b.node("Mul", ["sum", "gate"], "silu")
    b.node("Conv", [b.quantized("silu"), b.weight("w_out", (CHANNELS, HIDDEN, 3, 3), 3)], "conv_out", **kernel)
    b.nodes.append(helper.make_node("Identity", [b.quantized("conv_out")], ["output"], name="output"))
    latent = [1, CHANNELS, SIDE, SIDE]
    inputs = [
        helper.make_tensor_value_info("sample", TensorProto.FLOAT, latent),
        helper.make_tensor_value_info("step_vectors", TensorProto.FLOAT, [1, WIDTH]),
    ]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, latent)]
    graph = helper.make_graph(b.nodes, path.stem, inputs, outputs, b.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


class PythonGraphs:
    """The graphs of a bundle, executed by ONNX Runtime in Python."""

    def __init__(self, folder: Path) -> None:
        self.sessions = [open_session(folder / "model" / f"steps_g{group}.onnx") for group in range(GROUPS)]
        self.groups = [g for g, steps in enumerate(even_step_groups(CALLS, GROUPS)) for _ in steps]
        self.rows = step_vectors()

    def __call__(self, k: int, x: Tensor, timestep: object = None, conditioning: Mapping[str, Tensor] = {}) -> Tensor:
        feeds = {"sample": x.numpy(), "step_vectors": self.rows[k : k + 1].numpy()}
        return torch.from_numpy(self.sessions[self.groups[k]].run(None, feeds)[0])


def step_vectors() -> Tensor:
    """(N, V), another row for every call."""
    return torch.linspace(-2, 2, CALLS * WIDTH).reshape(CALLS, WIDTH)


def write_bundle(folder: Path) -> Path:
    """The bundle; its simulation is the graphs themselves on the CPU, its FP32 network a little beside them."""
    (folder / "model").mkdir(parents=True)
    for group, half in enumerate(RANGES):
        _graph(half, folder / "model" / f"steps_g{group}.onnx")
    write_tensors(folder / STEP_VECTORS, {"step_vectors": step_vectors()})
    table = probe(DDIMScheduler(clip_sample=False), CALLS)
    reference = _reference(folder, table)
    reference.save(folder / FILE)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    shape, groups = (1, CHANNELS, SIDE, SIDE), even_step_groups(CALLS, GROUPS)
    Bundle(
        target="qnn", form="a16", model_id="made-up", weight_hash="0" * 64, versions={}, program="model",
        inputs=(Port("sample", "float32", shape), Port("step_vectors", "float32", (1, WIDTH))),
        outputs=(Port("output", "float32", shape),), step_groups=groups,
        methods=tuple(f"steps_g{group}" for group in range(GROUPS)), table=table, guidance=1.0, limits=limits_for(reference),
        operations=(), sites=(), sizes={name: (folder / name).stat().st_size for name in names},
        files={name: sha256(folder / name) for name in names}).save(folder)  # fmt: skip
    return folder


def _reference(folder: Path, table: Any) -> Reference:
    network, generator = PythonGraphs(folder), torch.Generator().manual_seed(5)
    start = torch.randn((SEEDS, CHANNELS, SIDE, SIDE), generator=generator)
    errors = 0.02 * torch.randn((CALLS, SEEDS, CHANNELS, SIDE, SIDE), generator=generator)

    def simulated(x: Tensor, k: int) -> Tensor:
        return torch.cat([network(k, each[None]) for each in table.input_scale[k] * x])

    def exact(x: Tensor, k: int) -> Tensor:
        return simulated(x, k) + errors[k]

    outputs: list[Tensor] = []
    fp32 = rollout(table, exact, start)
    simulation = rollout(table, simulated, start, on_step=lambda k, x, f: outputs.append(f))
    at = torch.stack([exact(simulation[k], k) for k in range(table.calls)])
    return Reference(
        start=start, conditioning=Conditioning({}, {}), step_noise=None, fp32_latents=fp32, simulation_latents=simulation,
        simulation_outputs=torch.stack(outputs), fp32_outputs_at_simulation=at)  # fmt: skip
