"""The fused kernels: equal to the reference in Triton's interpreter, and built for NVIDIA's GPUs without one at hand."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.version import Version

from dq_toolchain.calibrate.network import kernel_choice
from dq_toolchain.calibrate.network.kernel_choice import why_not

ROOT = Path(__file__).parents[3]
TOLERANCE = 1e-6
"""Of gradients: of one scale, relative to the sum of its terms' magnitudes; in a network, to the gradient's norm."""
INSTALLED = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(
    not INSTALLED, reason="Triton is not installed: it has wheels for Linux on x86_64 alone"
)


@pytest.fixture(scope="module", params=["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
def seen(request: pytest.FixtureRequest) -> dict[str, Any]:
    """All cases of ``kernel_cases``, from a process of its own: Triton asks for the variable when it is imported."""
    on_gpu = request.param == "cuda"
    if on_gpu and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    if not on_gpu and Version(version("triton")) < Version("3.7"):
        pytest.skip("the interpreter of Triton before 3.7 runs no such loops beside NumPy 2.4")
    command = [sys.executable, "-m", "tests.calibrate.network.kernel_cases", *(["cuda"] if on_gpu else [])]
    environment = dict(os.environ) | ({} if on_gpu else {"TRITON_INTERPRET": "1"})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@needs_triton
@pytest.mark.parametrize("kind", ["activations", "weights"])
def test_values_and_gradients_through_the_rounding_are_the_references(kind: str, seen: dict[str, Any]) -> None:
    assert len(seen[kind]) > 15
    assert [name for name, case in seen[kind].items() if not (case["same_value"] and case["same_gradient"])] == []


@needs_triton
@pytest.mark.parametrize("kind", ["activations", "weights"])
def test_gradients_of_scales_are_the_references_and_no_further_from_the_exact_ones(
    kind: str, seen: dict[str, Any]
) -> None:
    of_log_scale = {name: case["of_log_scale"] for name, case in seen[kind].items()}
    of_truth = {name: case["of_truth"] for name, case in seen[kind].items()}
    assert {name: distance for name, distance in of_log_scale.items() if not distance <= TOLERANCE} == {}
    assert {name: distance for name, distance in of_truth.items() if not distance <= TOLERANCE} == {}
    assert max(of_log_scale.values()) > 0.0  # sums in another order, so the two did run


@needs_triton
def test_the_layout_in_memory_is_kept(seen: dict[str, Any]) -> None:
    assert all(case["strides_kept"] for case in seen["activations"].values())


@needs_triton
def test_scales_are_rounded_to_fp16_as_elsewhere(seen: dict[str, Any]) -> None:
    assert seen["rounded_scales"]


@needs_triton
def test_the_probe_of_a_device_finds_kernels_that_differ(seen: dict[str, Any]) -> None:
    assert seen["probes"] == ["as they are"]


@needs_triton
def test_a_network_gets_the_same_gradients(seen: dict[str, Any]) -> None:
    """Of all sites, weights with learned rounding and biases, relative to their norms, beside sums in float64."""
    distances = seen["network"]
    assert len(distances) > 50
    assert {name: distance for name, distance in distances.items() if not distance <= TOLERANCE} == {}


def test_a_cpu_has_no_kernels_and_lacks_none() -> None:
    assert why_not(torch.device("cpu")) is None
    assert not kernel_choice.usable(torch.zeros(3))


ONE_PASS = {"BLOCK": 1024}
ROWS = {"BLOCK": 2048, "CHOSEN": False, "OFFSET": True}
KERNELS: dict[str, dict[str, Any]] = {
    "_activation_forward": ONE_PASS,
    "_activation_backward": ONE_PASS,
    "_activation_log_scale": {"BLOCK": 1024, "GROUPS": 4},
    "_weight_forward": ROWS,
    "_weight_backward": {**ROWS, "LEARNED": True},
}
INTEGERS = ("count", "group", "groups", "width")


@needs_triton
@pytest.mark.parametrize("capability", [75, 80, 90])
@pytest.mark.parametrize("name", KERNELS)
def test_nvidias_assembly_divides_exactly_and_sums_in_a_fixed_order(name: str, capability: int) -> None:
    """No GPU takes part: what a GPU of that compute capability would run, as far as its own assembler."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from dq_toolchain.calibrate.network import triton_kernels

    kernel, constants = getattr(triton_kernels, name), KERNELS[name]
    source = ASTSource(kernel, {each: type_of(each) for each in kernel.arg_names}, constants)
    built = compile(source, target=GPUTarget("cuda", capability, 32))
    ptx = built.asm["ptx"]
    assert "div.rn.f32" in ptx
    assert "div.full" not in ptx
    assert not any(word in ptx for word in ("atom.", "red.global", ".approx", ".ftz"))
    if name.endswith("_forward"):  # a product and a sum rounded once would be another integer
        assert "fma.rn" not in ptx
    assert len(built.asm["cubin"]) > 0


def type_of(argument: str) -> str:
    """Of a kernel's argument, by its name."""
    if argument.isupper():
        return "constexpr"
    if argument in INTEGERS:
        return "i32"
    return "*fp32" if argument.endswith("_of") else "fp32"


@pytest.mark.parametrize(
    ("missing", "said"),
    [(ImportError(), "pip install triton"), (RuntimeError("no C compiler\nhere"), "no C compiler here")],
)
def test_a_gpu_without_kernels_is_told_of_once(missing: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise missing

    monkeypatch.setattr(kernel_choice, "triton_kernels" if isinstance(missing, ImportError) else "probe", fails)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _index: "a GPU")
    if not INSTALLED:
        monkeypatch.setattr(kernel_choice, "triton_kernels", lambda: None)
    kernel_choice._why_not.cache_clear()
    heard: list[str] = []
    for _ in range(2):
        kernel_choice.tell(torch.device("cuda", 0), heard.append)
    kernel_choice._why_not.cache_clear()
    kernel_choice._told.clear()
    assert len(heard) == 1
    assert heard[0].startswith(kernel_choice.SLOWER)
    assert said in heard[0]
