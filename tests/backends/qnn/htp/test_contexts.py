"""One context for a chip: weights of several step groups in it once, whole or not at all."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import onnx
import psutil
import pytest

from dq_toolchain.backends.qnn.htp import compiler
from dq_toolchain.backends.qnn.htp.compiler import compile_graphs
from dq_toolchain.backends.qnn.htp.contexts import integer_weights, write_contexts
from dq_toolchain.toolchain.errors import BackendError, ToolchainError
from tests.backends.qnn.htp.graphs import chain

pytestmark = pytest.mark.qnn
GROUPS = 5


def graphs(folder: Path, groups: int = GROUPS, channels: int = 320, bits: int = 8) -> list[Path]:
    """A chain of convolutions per step group: other scales, equal weights."""
    paths = [folder / f"steps_g{group}.onnx" for group in range(groups)]
    for group, path in enumerate(paths):
        path.write_bytes(chain(group, channels=channels, bits=bits))
    return paths


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_of_five_step_groups_are_there_once(bits: int, tmp_path: Path) -> None:
    paths = graphs(tmp_path, bits=bits)
    one = write_contexts(paths[:1], tmp_path / "one", "SM8750", lambda _: None)
    five = write_contexts(paths, tmp_path / "SM8750", "SM8750", lambda _: None)
    assert one.weight_bytes == five.weight_bytes == 6 * 320 * 320 * 9 * bits // 8
    assert one.bytes < 1.05 * one.weight_bytes
    assert five.bytes <= 1.1 * one.bytes
    names = [f"steps_g{group}_ctx.onnx" for group in range(GROUPS)]
    assert sorted(path.name for path in (tmp_path / "SM8750").iterdir()) == ["steps.bin", *names]
    assert five.graphs == tuple(names)
    assert five.bytes == sum(path.stat().st_size for path in (tmp_path / "SM8750").iterdir())
    assert re.fullmatch(r"v2\.\d+\.\d+\.\d+", five.qairt)
    parts = set()
    for name in names:
        (node,) = onnx.load(tmp_path / "SM8750" / name).graph.node
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        assert given["ep_cache_context"] == b"steps.bin"
        parts.add(given["partition_name"])
    assert len(parts) == GROUPS


def test_the_provider_finds_the_file_under_its_new_name(tmp_path: Path) -> None:
    """x86-64 executes no context; that the provider gets as far as handing it to Qualcomm's library shows that it was found."""
    paths = graphs(tmp_path, 2, channels=32)
    write_contexts(paths, tmp_path / "SM8650", "SM8650", lambda _: None)
    given = [
        paths[0],
        tmp_path / "SM8650" / "steps_g1_ctx.onnx",
    ]  # a context as the first thing of a process is a crash
    with pytest.raises(BackendError, match=r"contextCreateFromBinary failed. Error: QNN_COMMON_ERROR_NOT_SUPPORTED"):
        compile_graphs(given, "SM8650", lambda _: None)
    (tmp_path / "SM8650" / "steps.bin").rename(tmp_path / "elsewhere.bin")
    with pytest.raises(BackendError, match=r"refuses steps_g1_ctx.onnx") as caught:
        compile_graphs(given, "SM8650", lambda _: None)
    assert "NOT_SUPPORTED" not in str(caught.value)


def test_weights_that_differ_are_not_shared_and_that_is_refused(tmp_path: Path) -> None:
    paths = graphs(tmp_path, 3)
    other = onnx.load(paths[1])
    for tensor in other.graph.initializer:
        if re.fullmatch(r"w\d\.q", tensor.name):
            tensor.raw_data = tensor.raw_data[::-1]
    onnx.save(other, paths[1])
    with pytest.raises(BackendError, match=r"keeps the weights of 3 graphs more than once for SM8750: 11\.\d MB"):
        write_contexts(paths, tmp_path / "SM8750", "SM8750", lambda _: None)
    assert not (tmp_path / "SM8750").exists()


def test_a_refused_graph_leaves_nothing(tmp_path: Path) -> None:
    """In the middle of sharing, where Qualcomm's library would abort the process that does it."""
    paths = graphs(tmp_path, 3, channels=32)
    model = onnx.load(paths[1])
    places = [place for place, node in enumerate(model.graph.node) if node.name == "conv2.q"]
    following = model.graph.node[places[0] + 1]
    for node in model.graph.node:
        node.input[:] = ["conv2" if name == following.output[0] else name for name in node.input]
    onnx.save(model, paths[1])  # conv2 has no quantized result any more
    before = sorted(tmp_path.iterdir())
    with pytest.raises(
        BackendError,
        match=r"refuses steps_g1.onnx for SM8750: it does not take (w[23]\.dq \(DequantizeLinear\)(, |;)){2}",
    ):
        write_contexts(paths, tmp_path / "SM8750", "SM8750", lambda _: None)
    assert sorted(tmp_path.iterdir()) == before


def test_what_stands_in_the_way_stays(tmp_path: Path) -> None:
    (tmp_path / "SM8750").write_text("mine")
    with pytest.raises(ToolchainError, match=r"cannot write .*SM8750: what stands there is a file"):
        write_contexts(graphs(tmp_path, 1, channels=8), tmp_path / "SM8750", "SM8750", lambda _: None)
    assert (tmp_path / "SM8750").read_text() == "mine"


WRITER = """
import sys
from pathlib import Path
from dq_toolchain.backends.qnn.htp import compiler
from dq_toolchain.backends.qnn.htp.contexts import write_contexts
folder = Path(sys.argv[1])
write_contexts(sorted(folder.glob("steps_g*.onnx")), folder / "SM8750", "SM8750", lambda text: print(text, flush=True))
"""


def test_a_kill_in_the_middle_leaves_nothing_that_counts(tmp_path: Path) -> None:
    paths = graphs(tmp_path, 60, channels=8)
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("compiling 60 graphs for SM8750 into one context; needs about 0.2 GB")
    while not (started := list(tmp_path.glob(".SM8750.*.tmp/steps_g*"))):
        time.sleep(0.01)
    children = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    process.stdout.close()
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert (len(gone), alive) == (1, [])
    left = [path for path in tmp_path.iterdir() if path not in paths]
    assert left == [started[0].parent]
    write_contexts(paths[:1], tmp_path / "SM8750", "SM8750", lambda _: None)
    assert sorted(tmp_path.iterdir()) == sorted([*paths, tmp_path / "SM8750"])


def test_a_compiler_that_dies_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = graphs(tmp_path, 1, channels=8)
    monkeypatch.setattr(compiler, "__name__", "antigravity_is_no_module")
    with pytest.raises(
        BackendError, match=r"^Qualcomm's compiler died on its start for SM8750 with code 1 .*No module named"
    ):
        write_contexts([path], tmp_path / "SM8750", "SM8750", lambda _: None)
    assert not (tmp_path / "SM8750").exists()


def test_weight_bytes_of_external_weights(tmp_path: Path) -> None:
    (path,) = graphs(tmp_path, 1, channels=32)
    wanted = integer_weights(path)
    onnx.save(
        onnx.load(path), tmp_path / "outside.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    assert integer_weights(tmp_path / "outside.onnx") == wanted
    assert wanted.bytes == 6 * 32 * 32 * 9
