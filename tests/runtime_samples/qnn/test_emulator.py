"""dq-run on Qualcomm's emulator: the answers of the CPU but for the chip's rounding, and no times."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from dq_toolchain.backends.common.sampling import DeviceNetwork, sample
from dq_toolchain.backends.qnn.htp.contexts import write_contexts
from dq_toolchain.backends.qnn.htp.emulator import open_bundle
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.formats.report import load_report
from dq_toolchain.toolchain.metrics import relative_error
from dq_toolchain.toolchain.verdict.judge import validate
from tests.backends.qnn.conftest import Lowered
from tests.runtime_samples.cpp_core.conftest import assert_refused, run

pytestmark = pytest.mark.qnn

CLOSE = 3e-3
"""Relative, of an output: products differ by a step of 65,536 or two, float between them is fp16. Measured: 4.6e-4."""


def test_answers_are_those_of_python_and_near_those_of_the_cpu(
    bundle: Path, dq_run: Path, qnn_library: Path, tmp_path: Path
) -> None:
    loaded = Bundle.load(bundle)
    reference = loaded.reference(bundle)
    sample(loaded, bundle, tmp_path / "python", reference, *open_bundle(loaded, bundle), lambda *_: None)
    given = ("--emulator", "--qnn-library", qnn_library)
    done = run(dq_run, "--bundle", bundle, "--report", tmp_path / "cpp", *given)
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    assert not done.stderr
    report, python = load_report(tmp_path / "cpp"), load_report(tmp_path / "python")
    assert torch.equal(report.latents, python.latents)
    assert report.outputs_at_simulation is not None
    assert python.outputs_at_simulation is not None
    assert torch.equal(report.outputs_at_simulation, python.outputs_at_simulation)
    error = relative_error(report.outputs_at_simulation, reference.simulation_outputs)
    assert 0 < float(error.max()) < CLOSE, "0 would be the CPU's kernels"
    assert report.data["compute_unit"] == python.data["compute_unit"] == "HTP, emulated SM8750"
    assert report.data["emulated"]
    assert report.data["load_ms"] is None
    assert set(report.data["step_ms"]) == {None}
    assert not validate(tmp_path / "cpp").failed


def test_an_exported_bundle(wide: Lowered, dq_run: Path, qnn_library: Path, tmp_path: Path) -> None:
    """A whole network as `export --target qnn` writes it: attention, norms in float, weights in a file beside the graphs."""
    given = ("--emulator", "--qnn-library", qnn_library, "--seeds", "1", "--teacher-forced", "off")
    done = run(dq_run, "--bundle", wide.folder, "--report", tmp_path, *given)
    assert done.returncode == 0, done.stderr
    table, reference = wide.bundle.table, wide.reference
    execute, _ = open_bundle(wide.bundle, wide.folder)
    network = DeviceNetwork(execute, table, wide.bundle.guidance, reference.conditioning.select(slice(1)))
    start = reference.start[:1]
    second = table.a[0][0] * start + table.b[0][0] * network(start, 0)
    assert relative_error(load_report(tmp_path).latents[1, :1], second) < 1e-6
    assert relative_error(reference.simulation_latents[1, :1], second) > 1e-6, "another arithmetic would show"


def test_it_is_the_same_again_and_another_chip_is_named(
    bundle: Path, dq_run: Path, qnn_library: Path, tmp_path: Path
) -> None:
    given = ("--emulator", "--qnn-library", qnn_library, "--soc", "SM8550", "--seeds", "1", "--teacher-forced", "off")
    for name in ("one", "two"):
        done = run(dq_run, "--bundle", bundle, "--report", tmp_path / name, *given)
        assert done.returncode == 0, done.stderr
    one, two = (load_report(tmp_path / name) for name in ("one", "two"))
    assert torch.equal(one.latents, two.latents)
    assert one.data["compute_unit"] == "HTP, emulated SM8550"


def test_the_graph_for_the_npu_is_the_one_that_is_compiled(
    bundle: Path, dq_run: Path, qnn_library: Path, tmp_path: Path
) -> None:
    """Where a bundle has one; the CPU executes the other."""
    from tests.runtime_samples.cpp_core.conftest import seal_files

    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    for one, two in (("0", "1"), ("1", "0")):  # of the other step group, to be told apart
        shutil.copy(folder / "model" / f"steps_g{one}.onnx", folder / "model" / f"steps_g{two}.npu.onnx")
    seal_files(folder)
    few = ("--seeds", "1", "--teacher-forced", "off")
    given = ("--emulator", "--qnn-library", qnn_library, *few)
    loaded = Bundle.load(folder)
    reference = loaded.reference(folder)
    sample(loaded, folder, tmp_path / "python", reference, *open_bundle(loaded, folder), lambda *_: None)
    for name, where, options in (("npu", folder, given), ("plain", bundle, given), ("cpu", folder, few)):
        done = run(dq_run, "--bundle", where, "--report", tmp_path / name, *options)
        assert done.returncode == 0, done.stderr
    npu, plain, cpu, python = (
        load_report(tmp_path / name).latents[1, :1] for name in ("npu", "plain", "cpu", "python")
    )
    assert torch.equal(npu, python)
    assert not torch.equal(npu, plain)
    assert relative_error(cpu, plain) < CLOSE


def test_contexts_are_for_phones(bundle: Path, dq_run: Path, qnn_library: Path, tmp_path: Path) -> None:
    """Real ones, as a phone gets them: plugin, burst mode and file are taken, then Qualcomm's library for x86-64 crashes."""
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    given = ("--bundle", folder, "--report", tmp_path / "r", "--soc", "SM8750", "--qnn-library", qnn_library)
    assert_refused(run(dq_run, *given), "steps_g0_ctx.onnx; export it with --soc SM8750")
    graphs = [folder / "model" / f"steps_g{group}.onnx" for group in range(2)]
    write_contexts(graphs, folder / "SM8750", "SM8750", lambda _: None)
    assert_refused(
        run(dq_run, *given), "Qualcomm's library crashed; contexts of several step groups (--soc) load on a phone only"
    )
    (folder / "SM8750" / "steps_g0_ctx.onnx").write_bytes(b"no graph")
    assert_refused(run(dq_run, *given), "ONNX Runtime cannot load steps_g0_ctx.onnx")
    assert not (tmp_path / "r").exists()


def test_graphs_that_the_compiler_refuses(bundle: Path, dq_run: Path, qnn_library: Path, tmp_path: Path) -> None:
    """Nothing is left to the CPU in silence: a float product with weights per channel is refused."""
    import onnx

    from tests.runtime_samples.cpp_core.conftest import seal_files

    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    graph = folder / "model" / "steps_g0.onnx"
    model = onnx.load(graph)
    for node in model.graph.node:
        node.input[:] = ["conv_out" if name == "conv_out.dq" else name for name in node.input]
    kept = [node for node in model.graph.node if not node.output[0].startswith("conv_out.")]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    onnx.save(model, graph)
    seal_files(folder)
    done = run(dq_run, "--bundle", folder, "--report", tmp_path / "r", "--emulator", "--qnn-library", qnn_library)
    assert_refused(done, "(its log: Unsupported nodes in QNN EP: { name: w_out, type: DequantizeLinear })")
    assert not (tmp_path / "r").exists()


def test_libraries_that_are_no_plugin(bundle: Path, dq_run: Path, qnn_library: Path, tmp_path: Path) -> None:
    for name in ("libonnxruntime_providers_qnn.so", "libQnnHtp.so"):
        (tmp_path / name).write_bytes(b"no library")
    done = run(
        dq_run, "--bundle", bundle, "--report", tmp_path / "r", "--emulator", "--qnn-library",
        tmp_path / "libonnxruntime_providers_qnn.so",
    )  # fmt: skip
    assert_refused(done, "cannot load ")
