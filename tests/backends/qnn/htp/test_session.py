"""Sessions of Qualcomm's library: for a named chip, quiet, and refusals in one line that names the node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from dq_toolchain.backends.qnn import vendor
from dq_toolchain.backends.qnn.chips import SOCS
from dq_toolchain.backends.qnn.graph.biases import graph_to_compile
from dq_toolchain.backends.qnn.htp.session import open_session
from dq_toolchain.toolchain.errors import BackendError
from tests.backends.qnn.conftest import lower
from tests.backends.qnn.htp.graphs import Net, chain, rng
from tests.tiny_artifacts import lively_artifact
from tests.tiny_npu import for_npu

SHAPE = [1, 32, 8, 8]


def convolution(result: bool = True) -> bytes:
    """uint8; without a quantized result it is what TensorRT takes, and Qualcomm does not."""
    net = Net()
    weight = net.weight("w", rng().normal(size=(32, 32, 3, 3)) / 17)
    net.node("Conv", [net.qdq("x", "uint8"), weight], "conv" if result else "y", pads=[1] * 4)
    if result:
        net.qdq("conv", "uint8", out="y")
    return net.model({"x": SHAPE}, {"y": SHAPE})


def test_a_missing_wheel_is_one_line_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor, "find_spec", lambda _name: None)
    with pytest.raises(BackendError) as caught:
        vendor.require_compiler("--soc")
    text = str(caught.value)
    assert text.startswith("--soc needs Qualcomm's compiler, the wheel onnxruntime-qnn")
    assert "Qualcomm's AI Stack License" in text
    assert text.endswith("pip install 'dq-toolchain[qnn]'")
    assert "\n" not in text


@pytest.mark.qnn
def test_an_unknown_chip_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        BackendError, match=r"^chip must be one of SM8550, SM8650, SM8750, SM8850, got 'SM1'; change --soc$"
    ):
        open_session(convolution(), "SM1")


@pytest.mark.qnn
@pytest.mark.parametrize("soc", SOCS)
def test_it_compiles_for_every_chip_and_says_nothing(soc: str, capfd: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    session = open_session(convolution(), soc, said.append)
    x = rng(1).normal(size=SHAPE).astype(np.float32)
    (y,) = session.run(None, {"x": x})
    assert y.shape == tuple(SHAPE)
    assert np.abs(y).max() > 0.5
    assert said == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.qnn
def test_a_refusal_names_the_node_and_the_chip(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "steps_g0.onnx"
    path.write_bytes(convolution(result=False))
    with pytest.raises(BackendError) as caught:
        open_session(path, "SM8750")
    text = str(caught.value)
    assert text.startswith(
        "Qualcomm's compiler refuses steps_g0.onnx for SM8750: it does not take w.dq (DequantizeLinear); nothing was exported"
    )
    assert "\n" not in text
    assert capfd.readouterr() == ("", "")


@pytest.mark.qnn
def test_what_the_compiler_warns_of_is_said_in_one_line() -> None:
    said: list[str] = []
    open_session(convolution(), "SM8750", said.append, options={"htp_arch": "99"})
    assert said == ["Qualcomm's compiler on the graph for SM8750: Invalid HTP architecture: 99"]


@pytest.mark.qnn
def test_a_call_that_does_not_fit_is_one_line() -> None:
    session = open_session(convolution(), "SM8750")
    with pytest.raises(BackendError, match=r"emulator cannot execute the graph: .*Got: 2 Expected: 1"):
        session.run(None, {"x": np.zeros((2, 32, 8, 8), np.float32)})


@pytest.mark.qnn
def test_the_emulator_is_deterministic() -> None:
    x = {"x": rng(1).normal(size=(1, 32, 8, 8)).astype(np.float32)}
    first, second = (open_session(chain(0, channels=32), "SM8750").run(["y"], x)[0] for _ in range(2))
    assert (first == second).all()


HELD = """
import sys
from pathlib import Path
from dq_toolchain.backends.qnn.htp.session import open_session
session = open_session(Path(sys.argv[1]), "SM8750")
raise SystemError("with a session that the traceback holds")
"""


@pytest.mark.qnn
def test_a_process_that_ends_with_an_open_session_ends_as_it_should(tmp_path: Path) -> None:
    path = tmp_path / "steps_g0.onnx"
    path.write_bytes(convolution())
    done = subprocess.run([sys.executable, "-c", HELD, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("SystemError: with a session that the traceback holds\n")
    assert done.stdout == ""


@pytest.mark.qnn
def test_the_middle_of_a_wide_network_compiles(tmp_path: Path) -> None:
    """64 tokens of 320 channels, which the compiler refuses without a multiplication in front of their quantizer."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, layers_per_block=1, block_out_channels=(320,), down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",), norm_num_groups=8, attention_head_dim=8, cross_attention_dim=8,
    )  # fmt: skip
    artifact = for_npu(*lively_artifact(unet=unet.eval().requires_grad_(False), attention=True))
    lowered = lower(tmp_path, *artifact, form="a16")
    assert open_session(graph_to_compile(lowered.folder / "model", lowered.bundle.methods[0]), "SM8750").get_outputs()
