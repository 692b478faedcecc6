"""The program that builds engines: what it builds again, what it does not call INT8, and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from scripts.golden.damage import put

from dq_toolchain.backends.tensorrt.deploy.build_engines import main
from tests.backends.tensorrt import fake_tensorrt
from tests.backends.tensorrt.conftest import give_other_weights


def built() -> list[str]:
    """The graphs of which engines were built since the last call."""
    names = [event.split()[1] for event in fake_tensorrt.events if event.startswith("build ")]
    fake_tensorrt.events.clear()
    return names


def test_engines_of_other_weights_are_built_again(bundle: Path) -> None:
    assert main([str(bundle)]) == 0
    assert built() == ["steps_g0", "steps_g1"]
    assert main([str(bundle)]) == 0
    assert built() == []
    give_other_weights(bundle)
    assert main([str(bundle), "--check"]) == 3
    assert main([str(bundle)]) == 0
    assert built() == ["steps_g0", "steps_g1"]
    (bundle / "engines" / "steps_g1.made_of").unlink()
    assert main([str(bundle)]) == 0
    assert built() == ["steps_g1"]


def test_an_engine_of_another_graph_is_built_again_alone(bundle: Path) -> None:
    assert main([str(bundle)]) == 0
    built()
    graph = bundle / "model" / "steps_g1.onnx"
    graph.write_bytes((bundle / "model" / "steps_g0.onnx").read_bytes())
    digest = json.loads((bundle / "bundle.json").read_text())["files"]["model/steps_g0.onnx"]
    put("files", "model/steps_g1.onnx", to=digest)(bundle)
    assert main([str(bundle)]) == 0
    assert built() == ["steps_g1"]


def test_nothing_is_built_of_files_that_bundle_json_does_not_list(bundle: Path) -> None:
    """A copy that stopped half way: the engine would be said to be made of weights that it does not have."""
    put("files", "model/weights.bin", to="0" * 64)(bundle)
    with pytest.raises(SystemExit, match=r"model/weights\.bin is not the file that bundle\.json lists; copy the whole"):
        main([str(bundle)])
    assert built() == []


def test_a_build_that_stops_leaves_no_engine_that_passes_for_whole(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([str(bundle)]) == 0
    good = (bundle / "bundle.json").read_bytes(), (bundle / "model" / "weights.bin").read_bytes()
    give_other_weights(bundle)
    built()

    def stop(runtime: object, plan: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fake_tensorrt.Runtime, "deserialize_cuda_engine", stop)
        with pytest.raises(KeyboardInterrupt):
            main([str(bundle)])
    (bundle / "bundle.json").write_bytes(good[0])  # the older bundle comes back
    (bundle / "model" / "weights.bin").write_bytes(good[1])
    built()
    assert main([str(bundle)]) == 0
    assert built() == ["steps_g0"]


LISTS = {
    "no layers": lambda layers: [],
    "names only": lambda layers: [layer["Name"] for layer in layers],
    "all but one": lambda layers: layers[1:],
}


@pytest.mark.parametrize("name", LISTS)
def test_what_is_not_listed_is_not_called_int8(name: str, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(bundle)]) == 0
    path = bundle / "engines" / "steps_g0.layers.json"
    layers = json.loads(path.read_text())["Layers"]
    path.write_text(json.dumps({"Layers": LISTS[name](layers)}))
    capsys.readouterr()
    assert main([str(bundle)]) == 3
    said = capsys.readouterr().out
    assert f"  not shown: {layers[0]['Name']}\n" in said
    assert "0 in float" in said
    fake_tensorrt.in_float.add(layers[0]["Name"])  # a site in float says more than one that is not shown
    (bundle / "engines" / "steps_g1.plan").unlink()
    assert main([str(bundle)]) == 1


def _no_module(bundle: Path) -> None:
    (bundle.parent / "modules" / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: no such file')\n")


def _no_builder(bundle: Path) -> None:
    text = "__version__ = '10.3.0'\nclass Logger:\n    WARNING = 0\n    def __init__(self, level):\n        "
    (bundle.parent / "modules" / "tensorrt.py").write_text(text + "raise TypeError('no driver\\nat all')\n")


def _no_folder(bundle: Path) -> None:
    _no_module(bundle)
    (bundle / "engines").write_text("a file")


def _no_layers(bundle: Path) -> None:
    assert main([str(bundle)]) == 0
    (bundle / "engines" / "steps_g0.layers.json").write_text('{"Layers": [')


def _damaged(file: str, text: str) -> Callable[[Path], object]:
    return lambda bundle: (bundle / file).write_text(text)


CANNOT_BUILD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no tensorrt": (_no_module, "this Python does not import tensorrt (ImportError libnvinfer.so.10: no such file); take the"),
    "no driver": (_no_builder, "the engines cannot be built: TypeError no driver at all"),
    "no folder for engines": (_no_folder, "engines"),
    "no placements": (lambda bundle: (bundle / "placements.json").unlink(), "placements.json"),
    "no bundle.json": (lambda bundle: (bundle / "bundle.json").unlink(), "bundle.json"),
    "placements cut off": (_damaged("placements.json", '{"graphs": ['), "is missing or damaged: JSONDecodeError"),
    "placements of nothing": (_damaged("placements.json", "[]"), "is missing or damaged: TypeError"),
    "placements without sites": (
        _damaged("placements.json", '{"graphs": ["model/steps_g0.onnx"], "precision": "fp32"}'), "KeyError 'int8'"),
    "files of nothing": (_damaged("bundle.json", '{"files": []}'), "files must be an object"),
    "graphs not listed": (_damaged("bundle.json", '{"files": {}}'), "files list no steps_g0.onnx"),
    "list of layers cut off": (_no_layers, "steps_g0.layers.json is damaged: JSONDecodeError"),
}  # fmt: skip


@pytest.mark.parametrize("name", CANNOT_BUILD)
def test_what_cannot_be_built_is_one_line_and_exit_code_2(name: str, bundle: Path) -> None:
    """As a device runs it: exit code 1 says that a layer is in float."""
    spoil, text = CANNOT_BUILD[name]
    (bundle.parent / "modules").mkdir()
    spoil(bundle)
    options = ["--check"] if name == "list of layers cut off" else []
    done = subprocess.run(
        [sys.executable, str(bundle / "build_engines.py"), *options],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(bundle.parent / "modules")},
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert text in done.stderr


def test_a_bundles_folder_gets_nothing_but_engines(bundle: Path) -> None:
    before = {path.name for path in bundle.iterdir()}
    assert main([str(bundle)]) == 0
    done = subprocess.run(
        [sys.executable, str(bundle / "build_engines.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in bundle.iterdir()} == before | {"engines"}
    assert sorted(path.name for path in (bundle / "engines").iterdir()) == [
        *(f"steps_g{group}.{kind}" for group in (0, 1) for kind in ("layers.json", "made_of", "plan")),
        "timing.cache",
    ]
