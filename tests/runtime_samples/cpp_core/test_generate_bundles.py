"""Bundles of a pipeline that are not whole or not right: one line names the first fault, and no picture is written."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.runtime_samples.cpp_core.conftest import GOLDEN, assert_refused, seal_files
from tests.runtime_samples.cpp_core.test_generate import FOLDER, draw, program

__all__ = ["program"]


def put(*keys: Any, to: Any) -> Callable[[Any], object]:
    def change(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = to

    return change


FAULTS: dict[str, tuple[Callable[[Any], object], str]] = {
    "schema": (put("schema", to="x"), "schema must be dq-toolchain/pipeline, got x"),
    "version": (put("schema_version", to=2), "schema_version 2 is not supported"),
    "no tokenizers": (put("tokenizers", to=[]), "encoders[0]: tokenizer must be one of tokenizers, got tokenizer"),
    "lower": (put("tokenizers", 0, "lower", to="x"), "tokenizers[0]: lower must be true or false, got text"),
    "kind": (put("tokenizers", 0, "kind", to="bert"), "tokenizers[0]: kind must be clip or t5, got bert"),
    "length": (put("tokenizers", 0, "length", to=2), "tokenizers[0]: length must be 3-4096, got 2"),
    "pad": (put("tokenizers", 1, "pad", to=-1), "tokenizers[1]: pad must be 0-2147483647, got -1"),
    "begin": (lambda data: data["tokenizers"][0].pop("begin"), "tokenizers[0]: the key begin is missing"),
    "folder": (put("tokenizers", 0, "folder", to="../x"), "tokenizers[0]: folder names a place outside the bundle"),
    "folder, not listed": (put("tokenizers", 0, "folder", to="parts/x"), "files must list parts/x"),
    "name twice": (put("tokenizers", 1, "name", to="tokenizer"), "tokenizers holds tokenizer twice"),
    "tokenizer": (put("encoders", 1, "tokenizer", to="x"), "encoders[1]: tokenizer must be one of tokenizers, got x"),
    "outputs": (put("encoders", 0, "outputs", to=["hidden", "hidden"]), "encoders[0]: outputs must be hidden and pooled"),
    "no outputs": (put("encoders", 0, "outputs", to=[]), "encoders[0]: outputs must not be empty"),
    "more outputs": (put("encoders", 0, "outputs", to=["hidden", "pooled"]), "text_encoder gave 1 tensors, expected are 2"),
    "mask": (put("encoders", 0, "mask", to=1), "encoders[0]: mask must be true or false, got a number"),
    "program": (put("encoders", 0, "program", to="/x"), "encoders[0]: program names a place outside the bundle"),
    "program, not listed": (put("encoders", 0, "program", to="x"), "files must list x"),
    "input": (put("conditioning", "labels", to=[["text_encoder.hidden"]]), "conditioning names labels, which the"),
    "sample": (put("conditioning", "sample", to=[["text_encoder.hidden"]]), "conditioning names sample, which the"),
    "no rows": (put("conditioning", "text_embeds", to=[]), "conditioning.text_embeds: must not be empty"),
    "empty row": (put("conditioning", "text_embeds", to=[[]]), "conditioning.text_embeds: must not hold an empty row"),
    "tensor": (put("conditioning", "text_embeds", 0, 0, to="text_encoder.pooled"), "got text_encoder.pooled"),
    "shape": (put("conditioning", "text_embeds", 0, 0, to="tokenizer.mask"), "text_embeds: the text encoders give (1, 16)"),
    "axes": (put("conditioning", "text_embeds", 0, to=["tokenizer.mask", "text_encoder.hidden"]), "cannot be joined to"),
    "constants": (put("constants", to=None), "conditioning lacks time_ids, which the network takes"),
    "zeros": (put("zeros_without_negative", to=None), "zeros_without_negative must be true or false, got null"),
    "channels": (put("decoder", "channels", to=2), "channels must be 1 or 3, got 2"),
    "height": (put("decoder", "height", to=13), "the decoder gave (1, 3, 12, 12), expected is (1, 3, 13, 12)"),
    "width": (put("decoder", "width", to=0), "width must be 1-16384, got 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_the_first_fault_of_a_pipeline_is_named(name: str, program: Path, tmp_path: Path) -> None:
    change, said = FAULTS[name]
    bundle = Path(shutil.copytree(FOLDER / "two-encoders" / "bundle", tmp_path / "bundle"))
    data = json.loads((bundle / "pipeline.json").read_text())
    change(data)
    (bundle / "pipeline.json").write_text(json.dumps(data))
    seal_files(bundle)
    done = draw(program, "two-encoders", tmp_path, bundle=bundle)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1], done.stderr
    assert not (tmp_path / "picture.png").exists()


def test_constants_of_another_shape_are_refused(program: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(FOLDER / "two-encoders" / "bundle", tmp_path / "bundle"))
    path = bundle / "parts" / "constants.safetensors"
    save_file(load_file(path) | {"uncond.time_ids": np.zeros((1, 5), np.float32)}, path)
    seal_files(bundle)
    done = draw(program, "two-encoders", tmp_path, bundle=bundle)
    assert done.returncode == 2
    assert "time_ids: uncond.time_ids must be (1, 6), got (1, 5)" in done.stderr


def test_a_bundle_of_a_network_alone(program: Path, tmp_path: Path) -> None:
    done = draw(program, "guided", tmp_path, bundle=GOLDEN / "ddim-guided" / "bundle")
    assert_refused(done, "holds a network alone, without text encoder and decoder; export the whole pipeline")


def test_samples_of_other_axes_are_no_pictures(program: Path, tmp_path: Path) -> None:
    """One channel over time, and no decoder: it was read as if it had a height and a width."""
    bundle = Path(shutil.copytree(FOLDER / "guided" / "bundle", tmp_path / "bundle"))
    data, pipeline = (json.loads((bundle / name).read_text()) for name in ("bundle.json", "pipeline.json"))
    elements = math.prod(data["outputs"][0]["shape"])
    for port in (data["inputs"][0], data["outputs"][0]):
        port["shape"] = [1, 1, elements]
    (bundle / "bundle.json").write_text(json.dumps(data))
    (bundle / "pipeline.json").write_text(json.dumps(pipeline | {"decoder": None}))
    seal_files(bundle)
    done = draw(program, "guided", tmp_path, bundle=bundle)
    assert done.returncode == 2
    said = f"a picture is (1, 1 or 3, H, W), got (1, 1, {elements}); this model makes no pictures"
    assert done.stderr.splitlines()[-1].endswith(said), done.stderr
    assert not (tmp_path / "picture.png").exists()


def test_a_changed_part_is_noticed(program: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(FOLDER / "guided" / "bundle", tmp_path / "bundle"))
    (bundle / "parts" / "decoder.bin").write_text("other")
    assert_refused(
        draw(program, "guided", tmp_path, bundle=bundle), "parts/decoder.bin was changed after it was written"
    )
