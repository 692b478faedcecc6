"""Shortened passes: what is shortened, what never is, and what a device that cannot is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from benchmarks import precision as benchmark
from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.multistep.problem import Problem
from dq_toolchain.calibrate.network.precision import check_precision, computing_in
from dq_toolchain.calibrate.pipeline import calibrated
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.ranges.measure import choose_all, observe_chosen, observe_rollouts
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.recipe.sections import Precision
from tests.calibrate.conftest import QUIET, measured, tiny_recipe

GPU = torch.device("cuda")


@pytest.fixture
def float32_products() -> Iterator[None]:
    """What ``choose_device`` tells a GPU."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = before


def _shortened() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.usefixtures("float32_products")
def test_tf32_ends_with_the_pass_also_with_one_that_fails() -> None:
    with computing_in("tf32", GPU):
        assert _shortened() == (True, True)
    assert _shortened() == (False, False)
    with pytest.raises(ZeroDivisionError), computing_in("tf32", GPU):
        _ = 1 / 0
    assert _shortened() == (False, False)
    with computing_in("exact", GPU):
        assert _shortened() == (False, False)


def test_bf16_shortens_products_and_leaves_sampler_and_latents_in_float32(tiny_model: Path, tmp_path: Path) -> None:
    exact = setup(tiny_recipe(tiny_model, tmp_path))
    short = setup(tiny_recipe(tiny_model, tmp_path, run={"precision": "bf16"}))
    one, other = observe_rollouts(exact)[0], observe_rollouts(short)[0]
    assert one.latents.dtype == other.latents.dtype == other.outputs.dtype == torch.float32
    error = relative_error(other.latents[-1], one.latents[-1])
    assert float(error.min()) > 1e-5  # it is another arithmetic
    assert float(error.max()) < 2e-2
    assert torch.equal(other.latents[0], one.latents[0])


def test_ranges_are_measured_in_it(tiny_model: Path, tmp_path: Path) -> None:
    exact = setup(tiny_recipe(tiny_model, tmp_path))
    targets = observe_rollouts(exact)[0]
    found = [
        choose_all(
            each,
            observe_chosen(each, targets, None, lambda n=1, note="": None),
            tiny_recipe(tiny_model, tmp_path).calibrate,
        )[0]
        for each in (exact, replace(exact, precision="bf16"))
    ]
    assert not torch.equal(found[0], found[1])
    assert float((found[1] / found[0] - 1).abs().median()) < 0.02


def test_validation_is_computed_in_it_and_gradients_are_not(tiny_model: Path, tmp_path: Path) -> None:
    case = measured(tiny_model, tmp_path)
    network = quantize_with(case.context, case.scale, case.zero_point, case.recipe)
    seen: list[bool] = []
    network.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    context = replace(case.context, precision="bf16")
    problem = Problem(context=context, targets=case.trajectories.targets, validation=2, settings=case.recipe.calibrate)
    problem.validation_error(network)
    assert set(seen) == {True}
    assert not torch.is_autocast_enabled("cpu")
    seen.clear()
    assert isinstance(Trajectories(context, case.trajectories.targets).exact()(context.samples.start, 0), torch.Tensor)
    assert not torch.is_autocast_enabled("cpu")


def test_only_shortened_passes_are_shortened_in_a_whole_calibration(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No gradient is taken inside; what the artifact records says which precision it was."""
    backward = torch.autograd.backward
    inside: list[bool] = []

    def watched(*args: object, **keywords: object) -> None:
        inside.append(torch.is_autocast_enabled("cpu"))
        backward(*args, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.autograd, "backward", watched)
    made = calibrated(tiny_recipe(tiny_model, tmp_path, run={"precision": "bf16"}), QUIET, tmp_path / "work")
    assert inside
    assert not any(inside)
    assert made.artifact.record["recipe"]["run"]["precision"] == "bf16"


def test_tf32_is_refused_on_a_cpu_with_what_to_do(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--precision: got tf32, .* allowed here: exact, bf16"):
        setup(tiny_recipe(tiny_model, tmp_path, run={"precision": "tf32"}))


@pytest.mark.parametrize("precision", get_args(Precision))
def test_a_gpu_without_such_products_is_refused(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Tesla T4")
    for capability in ((7, 5), (9, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device, found=capability: found)
        if precision == "exact" or capability == (9, 0):
            check_precision(precision, GPU)
        else:
            with pytest.raises(RecipeError, match=r"Tesla T4 cannot multiply .* take exact"):
                check_precision(precision, GPU)


def test_tf32_of_the_benchmark_keeps_ten_bits() -> None:
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    short = benchmark.to_tf32(x)
    assert 2**-12 < float((short / x - 1).abs().max()) <= 2**-11
    assert torch.equal(benchmark.to_tf32(short), short)
    integers = torch.arange(-2048.0, 2049.0)
    assert torch.equal(benchmark.to_tf32(integers), integers)  # 8-bit integers are exact in it


def test_the_benchmark_compares_with_the_exact_calibration(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = {"samples": 8, "batch": 4, "warmup": 2, "settling": 0, "group_iterations": 0}
    command = ["--model", str(tiny_model), "--bits", "W8A8", "--held-out", "4", "--device", "cpu"]
    command += ["--calibrate", json.dumps(tiny), "--sampler", '{"steps": 3, "guidance": 1.0}']
    benchmark.main(benchmark.arguments().parse_args(command), tmp_path)
    exact, tf32, bf16 = json.loads((tmp_path / "rows.json").read_text())
    assert exact["to_exact"][0] == 0
    assert exact["verdict"] in ("pass", "fail", "not decided")
    assert exact["values"] != tf32["values"] != bf16["values"] != exact["values"]
    assert "bf16" in capsys.readouterr().out
