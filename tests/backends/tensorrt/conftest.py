"""Bundles of a tiny artifact, one per form, made once per session and only read."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from diffusers import UNet2DModel
from scripts.golden.damage import put
from torch import Tensor, nn

from dq_toolchain import backends
from dq_toolchain.backends.tensorrt.proof import nvidia
from dq_toolchain.backends.tensorrt.settings import Settings
from dq_toolchain.toolchain.disk.files import sha256
from dq_toolchain.toolchain.formats.artifact import Artifact, load_reference
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.formats.reference import Reference
from tests import tiny, tiny_artifacts
from tests.backends.tensorrt import fake_tensorrt
from tests.shared import once
from tests.toolchain.quant.test_step_vectors import CASES

needs_nvidia = pytest.mark.skipif(not nvidia.is_installed(), reason=f"needs NVIDIA's compiler: {nvidia.INSTALL}")


@dataclass(frozen=True)
class Lowered:
    """A bundle, and what it was made of."""

    artifact: Artifact
    unet: nn.Module
    reference: Reference
    bundle: Bundle
    folder: Path

    @property
    def graphs(self) -> list[Path]:
        return [self.folder / "model" / f"{method}.onnx" for method in self.bundle.methods]

    @property
    def narrow(self) -> set[str]:
        """Convolutions with fewer than 16 channels on one side, for which there is no INT8 kernel."""
        shapes = {name: held.weight_q.shape for name, held in self.artifact.layers.items()}
        return {name for name, shape in shapes.items() if len(shape) == 4 and min(shape[:2]) < 16}

    def graph_of(self, k: int) -> Path:
        """The graph that step k executes."""
        return self.folder / "model" / f"{self.bundle.method_of_step(k)}.onnx"

    def inputs(self, k: int, seed: int = 0) -> dict[str, Tensor]:
        """Inputs of step k by name: noise, the timestep, conditioning and ranges."""
        row, group = seed % self.reference.seeds, self.artifact.group_of_step[k]
        sample = torch.randn(self.reference.start[:1].shape, generator=torch.Generator().manual_seed(seed))
        timestep = torch.tensor([self.artifact.table.timesteps[k]], dtype=torch.float32)
        rows = self.artifact.step_rows
        time = {"timestep": timestep} if rows is None else {"step_vectors": rows[k : k + 1]}
        given = {"sample": sample, **time, **self.reference.conditioning.select(slice(row, row + 1)).cond}
        ranges = self.bundle.ranges(self.folder)
        return given if ranges is None else given | {"ranges": ranges[group : group + 1]}


def attention_unet(head: int = 32, size: int = tiny.SIZE) -> UNet2DModel:
    """One attention level with heads that an INT8 kernel takes."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=size,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=head,
        num_class_embeds=11,
    )
    return unet.eval().requires_grad_(False)


def lower(folder: Path, artifact: Artifact, unet: nn.Module, **settings: Any) -> Lowered:
    """Save the artifact and lower it, as the command does."""
    reference = tiny_artifacts.tiny_reference(artifact, unet)
    source = folder / "calibration"
    artifact.save(source, reference)
    bundle = backends.load("tensorrt").lower(
        Artifact.load(source), source, folder / "tensorrt", Settings(**settings), lambda _: None
    )
    return Lowered(artifact, unet, reference, bundle, folder / "tensorrt")


FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "static-fp32": ({}, {}),
    "ratio-fp32": ({"step_groups_as": "input"}, {"weight_bits": 4}),
    "static-fp16": ({"jetpack": 7}, {"attention": True, "unet": "attention"}),
    "ratio-fp16": ({"step_groups_as": "input", "jetpack": 7}, {}),
    "cross-attention": ({}, {"unet": "condition", "weight_bits": 4}),
    "smoothed": ({}, {"smoothed": True}),
    "step-vectors": ({"jetpack": 7}, {"unet": "divided by time", "step_vectors": True}),
}
"""Settings and options of the artifact, by name."""


@pytest.fixture(scope="session", params=FORMS)
def form(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """Each form in turn."""
    return made(request.param, tmp_path_factory)


@pytest.fixture(scope="session")
def static(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """A graph per step group, fp32."""
    return made("static-fp32", tmp_path_factory)


def made(name: str, folders: pytest.TempPathFactory) -> Lowered:
    """A form, lowered once, whichever process of the tests asks first."""
    artifact, unet = _artifact_of(name)
    folder = once(folders, f"tensorrt-{name}", lambda folder: lower(folder, artifact, unet, **FORMS[name][0]))
    reference, out = load_reference(folder / "calibration"), folder / "tensorrt"
    return Lowered(artifact, unet, reference, Bundle.load(out), out)


@cache
def _artifact_of(name: str) -> tuple[Artifact, nn.Module]:
    networks: dict[str, Callable[[], nn.Module]] = {
        "attention": attention_unet,
        "condition": tiny.tiny_condition_unet,
        "divided by time": lambda: CASES["divided by time"].build().requires_grad_(False),
    }
    options: dict[str, Any] = {
        key: networks[value]() if key == "unet" else value for key, value in FORMS[name][1].items()
    }
    return tiny_artifacts.lively_artifact(**options)


@pytest.fixture
def bundle(static: Lowered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a bundle on a device that has TensorRT."""
    copy = tmp_path / "bundle"
    shutil.copytree(static.folder, copy)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    monkeypatch.setattr(fake_tensorrt, "__version__", "10.3.0")
    fake_tensorrt.events.clear()
    fake_tensorrt.in_float.clear()
    return copy


def give_other_weights(bundle: Path) -> None:
    """What a further calibration and export change: the weights, and their hash in bundle.json."""
    weights = bundle / "model" / "weights.bin"
    data = bytearray(weights.read_bytes())
    data[100] ^= 1
    weights.write_bytes(data)
    put("files", "model/weights.bin", to=sha256(weights))(bundle)


def load_graph(path: Path) -> Any:
    """The onnx_ir model of a file."""
    return ir.load(path)
