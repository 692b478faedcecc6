"""The bundle: complete, audited, equal to the simulation, and absent where anything fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dq_toolchain.backends.common.call import example_call
from dq_toolchain.backends.common.running import run as run_bundle
from dq_toolchain.backends.common.sampling import DeviceNetwork
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.backends.executorch import lowering
from dq_toolchain.backends.executorch.runtime.device import Device
from dq_toolchain.backends.executorch.runtime.sampler import executor
from dq_toolchain.backends.executorch.settings import Settings
from dq_toolchain.backends.executorch.support import check_supported
from dq_toolchain.toolchain.errors import BackendError, ToolchainError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.bundle import RANGES, Bundle
from dq_toolchain.toolchain.quant.site import FloatOp, Site
from dq_toolchain.toolchain.verdict.judge import validate
from tests import tiny_artifacts
from tests.backends.executorch.conftest import Lowered, lower_into, small_artifact

NETWORK_FILES = {"bundle.json", "model.pte", "reference.safetensors"}


def _products(bundle: Bundle, arithmetic: str) -> int:
    kinds = ("Conv2d", "DepthwiseConv2d", "FullyConnected")
    return sum(row.count for row in bundle.operations if row.name in kinds and row.arithmetic.startswith(arithmetic))


@pytest.mark.parametrize(
    ("fixture", "files"),
    [("small", NETWORK_FILES | {RANGES}), pytest.param("static", NETWORK_FILES, marks=pytest.mark.slow)],
)
def test_bundle_is_complete(fixture: str, files: set[str], request: pytest.FixtureRequest) -> None:
    artifact, _, _, bundle, folder = request.getfixturevalue(fixture)
    assert {path.name for path in folder.iterdir()} == files
    assert {path.name for path in folder.parent.iterdir()} == {"calibration", "bundle"}
    assert bundle == Bundle.load(folder)
    methods = len(bundle.methods)
    assert methods == (1 if fixture == "small" else len(artifact.step_groups))
    assert _products(bundle, "int8") == len(artifact.sites) * methods
    assert _products(bundle, "float32") == 0
    assert bundle.sizes["model.pte"] == (folder / "model.pte").stat().st_size


@pytest.mark.parametrize("fixture", ["small", "static"])
def test_device_errs_as_the_simulation_does(fixture: str, request: pytest.FixtureRequest) -> None:
    """At the simulation's latents, all steps and seeds: the size of the error against FP32 within 15 %."""
    _, _, reference, bundle, folder = request.getfixturevalue(fixture)
    execute = executor(Device(folder / "model.pte", bundle.methods), Schedule.of(bundle, folder))
    simulated = bundle.reference(folder).simulation_outputs
    device_error = simulation_error = 0.0
    for seed in range(reference.seeds):
        network = DeviceNetwork(
            execute, bundle.table, bundle.guidance, reference.conditioning.select(slice(seed, seed + 1))
        )
        for k in range(reference.calls):
            out = network(reference.simulation_latents[k][seed : seed + 1], k)
            fp32 = reference.fp32_outputs_at_simulation[k][seed : seed + 1]
            device_error += float((out - fp32).square().sum())
            simulation_error += float((simulated[k][seed : seed + 1] - fp32).square().sum())
    assert 0.85 < (device_error / simulation_error) ** 0.5 < 1.15


@pytest.mark.slow
def test_program_is_free_of_scales_and_of_the_number_of_step_groups(small: Lowered, tmp_path: Path) -> None:
    """XNNPACK's weight cache keys on weights: it is safe because nothing else of an artifact is in the program."""
    artifact, _, reference = small_artifact(step_groups=4, guidance=2.0, scheme="affine", smoothed=True)
    artifact = replace(artifact, scale=artifact.scale * 2, layers=small[0].layers)
    same_weights = replace(artifact, float_parameters=small[0].float_parameters)
    same_weights.save(tmp_path / "calibration", reference)
    unet = same_weights.build_float_unet()
    call = example_call(same_weights, reference)
    data = lowering._lower_sentinel(same_weights, reference, unet, call, lambda _: None).data
    assert data == (small[4] / "model.pte").read_bytes()


def test_no_float_weights_are_left_in_the_file(small: Lowered, static: Lowered) -> None:
    for artifact, _, _, _, folder in (small, static):
        data = (folder / "model.pte").read_bytes()
        for name, layer in artifact.layers.items():
            weight = layer.dequantized()
            channels_last = weight.permute(0, *range(2, weight.dim()), 1).contiguous()
            assert weight.numpy().tobytes() not in data, name
            assert channels_last.numpy().tobytes() not in data, name
    artifact, folder = small[0], small[4]
    integers = sum(layer.weight_q.numel() for layer in artifact.layers.values())
    floats = 4 * sum(tensor.numel() for tensor in artifact.float_parameters.values())
    graph = 160_000  # nodes, alignment and the constants of the rewrites
    assert (folder / "model.pte").stat().st_size < integers + floats + graph


def test_program_from_bytes_outlives_its_loader(small: Lowered) -> None:
    """The runtime's methods point into the program's bytes, which only the Device keeps alive."""
    import gc

    bundle, folder, reference = small[3], small[4], small[2]
    execute = executor(Device((folder / "model.pte").read_bytes(), bundle.methods), Schedule.of(bundle, folder))
    network = DeviceNetwork(execute, bundle.table, bundle.guidance, reference.conditioning.select(slice(1)))
    before = network(reference.start[:1], 0)
    gc.collect()
    junk = [bytearray(b"\xff" * len((folder / "model.pte").read_bytes())) for _ in range(20)]
    assert torch.equal(network(reference.start[:1], 0), before)
    assert len(junk) == 20


@pytest.mark.parametrize("step", ["audit", "smoke", "lower_methods"])
def test_failure_anywhere_leaves_no_bundle(
    step: str, small: Lowered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, _, reference, _, folder = small
    data = (folder / "model.pte").read_bytes()
    monkeypatch.setattr(lowering, "lower_methods", lambda _: data)
    monkeypatch.setattr(lowering, "export", lambda *_: None)

    def fail(*_: object) -> None:
        raise BackendError("planted")

    monkeypatch.setattr(lowering, step, fail)
    with pytest.raises(BackendError, match="planted"):
        lower_into(tmp_path, artifact, reference)
    assert [path.name for path in tmp_path.iterdir()] == ["calibration"]


def test_old_bundle_is_replaced_and_other_files_stay(
    static: Lowered, small: Lowered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (small[4] / "model.pte").read_bytes()
    monkeypatch.setattr(lowering, "lower_methods", lambda _: data)
    monkeypatch.setattr(lowering, "export", lambda *_: None)
    (tmp_path / "bundle").mkdir()
    for name in ("notes.txt", RANGES, "bundle.json"):
        (tmp_path / "bundle" / name).write_text("old")
    bundle, folder = lower_into(tmp_path, small[0], small[2])
    assert (folder / "notes.txt").read_text() == "old"
    assert Bundle.load(folder) == bundle == small[3]


def test_unwritable_folder_is_one_line(small: Lowered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (small[4] / "model.pte").read_bytes()
    monkeypatch.setattr(lowering, "lower_methods", lambda _: data)
    monkeypatch.setattr(lowering, "export", lambda *_: None)
    (tmp_path / "bundle").write_text("a file where the folder should be")
    with pytest.raises(ToolchainError, match=r"cannot write .*bundle"):
        lower_into(tmp_path, small[0], small[2])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"operand": "q", "kind": "attention", "weight_bits": None}, 'calibrate with attention = "float"'),
        ({"bits": 6}, "activation bits must be 8 for target 'executorch', got 6 at site conv_in:input"),
        ({"weight_bits": 16}, "weight bits must be 2-8 for target 'executorch', got 16 at site conv_in:input"),
    ],
)
def test_unsupported_sites_are_refused_by_name(change: dict[str, object], text: str, small: Lowered) -> None:
    artifact = small[0]
    index = artifact.site_index("conv_in")
    site = Site(**{**artifact.sites[index].to_json(), **change})
    changed = replace(artifact, sites=(*artifact.sites[:index], site, *artifact.sites[index + 1 :]))
    with pytest.raises(BackendError, match=text):
        check_supported(changed, artifact.build_float_unet(), ranges_as_input=True)


def test_unsupported_layers_are_refused_by_name(small: Lowered) -> None:
    artifact, unet = small[0], small[0].build_float_unet()
    grouped = replace_layer(artifact, unet, nn.Conv2d(8, 8, 3, padding=1, groups=2))
    with pytest.raises(
        BackendError, match=r"conv_in has 2 channel groups; .*--step-groups-as methods, or .*keep_float = "
    ):
        check_supported(artifact, grouped, ranges_as_input=True)
    check_supported(artifact, grouped, ranges_as_input=False)
    with pytest.raises(BackendError, match="conv_in has padding"):
        check_supported(
            artifact, replace_layer(artifact, unet, nn.Conv2d(8, 8, 3, padding="same")), ranges_as_input=True
        )
    odd = FloatOp("up", "ConvTranspose2d", "module type is not supported by the quantizer")
    with pytest.raises(BackendError, match="up is a ConvTranspose2d"):
        check_supported(replace(artifact, float_operations=(odd,)), artifact.build_float_unet(), ranges_as_input=True)
    index = artifact.site_index("conv_in")
    fewer = (*artifact.sites[:index], *artifact.sites[index + 1 :])
    with pytest.raises(BackendError, match="conv_in has no site"):
        check_supported(replace(artifact, sites=fewer), artifact.build_float_unet(), ranges_as_input=True)


def replace_layer(artifact: Artifact, unet: nn.Module, layer: nn.Module) -> nn.Module:
    unet.conv_in = layer
    return unet


@pytest.mark.slow
def test_attention_up_and_down_sampling_4_bit_weights(tmp_path: Path) -> None:
    """The whole of the tiny network, 55 sites, 4-bit weights; run and judged."""
    artifact, unet = tiny_artifacts.tiny_artifact(weight_bits=4)
    reference = tiny_artifacts.tiny_reference(artifact, unet)
    bundle, folder = lower_into(tmp_path, artifact, reference)
    linears = sum(site.kind == "linear" for site in artifact.sites)
    assert _products(bundle, "int8 x int4") == linears
    assert _products(bundle, "int8 x int8") == len(artifact.sites) - linears
    portable = {row.name: row.why for row in bundle.operations if row.where == "portable"}
    assert portable["aten::embedding.out"] == "table look-up, no arithmetic"
    assert len(portable) <= 3
    from dq_toolchain import backends

    report = run_bundle(backends.load("executorch"), bundle, folder, folder, threads=1)
    assert not validate(report).failed


def test_settings_default_to_ranges_as_input() -> None:
    assert Settings().step_groups_as == "input"
