"""Text encoders and decoders as packages: the part's function, its integers, and every planted fault named."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from dq_toolchain.backends.common.qdq.export import MAIN
from dq_toolchain.backends.common.qdq.part_audit import audit_part
from dq_toolchain.backends.coreml.interpreter.program import load
from dq_toolchain.backends.coreml.package import MODEL, WEIGHT_FILE
from dq_toolchain.backends.coreml.parts import open_part, write_part
from dq_toolchain.backends.coreml.proof.reading import MILReader
from dq_toolchain.backends.coreml.settings import Settings
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.bundle import Operation
from dq_toolchain.toolchain.parts.part import Part
from tests.backends.changed_parts import in_float, other_bias, other_integer, other_scale, smaller
from tests.backends.whole_parts import PIPELINES, pipeline_of
from tests.tiny_parts import TINY, calls_of, clip_part, decoder_part, encoder_part, t5_part

TABLE, LAYER, PROJECTION = "embeddings.token_embedding", "encoder.layers.1.mlp.fc1", "text_projection"


@dataclass(frozen=True)
class Made:
    part: Part
    half: bool
    package: Path
    operations: Mapping[str, Operation]

    def error(self) -> float:
        """Largest difference from the part in float32."""
        names = [[port.name for port in ports] for ports in (self.part.inputs, self.part.outputs)]
        execute, module = open_part(self.package, names[0], names[1]), self.part.build()
        errors = []
        for call in calls_of(self.part):
            got = execute(call)
            assert list(got) == names[1]
            errors += [(got[n] - want).abs().max() for n, want in zip(names[1], module(*call.values()), strict=True)]
        return float(torch.stack(errors).max())


def made(part: Part, folder: Path, half: bool = True, **settings: int) -> Made:
    name, rows = write_part(part, folder, Settings.model_validate(settings), half)
    return Made(part, half, folder / name, {row.name: row for row in rows})


def audit(package: Path, part: Part, half: bool = True) -> None:
    audit_part(load(package)[MAIN], part, half, MILReader())


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """CLIP with pooled output, in fp16."""
    return made(clip_part(), tmp_path_factory.mktemp("clip"))


def test_clip_in_fp16_is_the_part(clip: Made) -> None:
    assert clip.error() < 0.01
    assert clip.operations["linear"].arithmetic == "float x int8"
    assert clip.operations["linear"].count == len(clip.part.layers) - 1
    assert clip.operations["constexpr_blockwise_shift_scale"].count == len(clip.part.layers)
    assert clip.operations["gather"].count == 1


def test_t5_in_fp32_is_the_part_to_the_last_bits(tmp_path: Path) -> None:
    """The tanh of its GELU too, which coremltools loses: the exact one is 4e-4 away. On iOS 17, whose weights have another form."""
    t5 = made(t5_part(), tmp_path, half=False, ios=17)
    assert t5.error() < 1e-5
    assert t5.operations["constexpr_affine_dequantize"].count == len(t5.part.layers)


def test_t5_without_a_mask_in_fp16_is_the_part(tmp_path: Path) -> None:
    assert made(t5_part(masked=False), tmp_path).error() < 0.05


@pytest.mark.parametrize("config", [{}, {"config": TINY}])
def test_a_decoder_in_fp16_is_the_part(config: dict[str, Mapping[str, object]], tmp_path: Path) -> None:
    assert made(decoder_part(**config), tmp_path).error() < 0.01


@pytest.mark.parametrize("config", [{}, {"config": TINY}])
def test_an_encoder_of_pictures_in_fp16_is_the_part(config: dict[str, Mapping[str, object]], tmp_path: Path) -> None:
    assert made(encoder_part(**config), tmp_path).error() < 0.01


@pytest.mark.parametrize("change", [other_integer, other_scale, other_bias])
def test_a_convolution_with_a_stride_that_differs_is_named(change: Callable[[Part, str], Part], tmp_path: Path) -> None:
    part, layer = encoder_part(), "encoder.down_blocks.0.downsamplers.0.conv"
    encoder = made(part, tmp_path)
    with pytest.raises(BackendError, match=layer):
        audit(encoder.package, change(part, layer))


@pytest.mark.parametrize("layer", [TABLE, LAYER, PROJECTION])
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (other_integer, "has integers of no layer that is left; nearest is {layer};"),
        (other_scale, "scales of .*{layer} differ"),
    ],
)
def test_a_part_that_differs_is_named(change: Callable[[Part, str], Part], text: str, layer: str, clip: Made) -> None:
    with pytest.raises(BackendError, match=text.format(layer=layer)):
        audit(clip.package, change(clip.part, layer))


def test_a_bias_that_differs_is_named(clip: Made) -> None:
    with pytest.raises(BackendError, match=f"the bias of {LAYER} differs"):
        audit(clip.package, other_bias(clip.part, LAYER))


@pytest.mark.parametrize("what", ["integer", "scale"])
@pytest.mark.parametrize("layer", [TABLE, LAYER])
def test_one_bit_in_the_file_is_named(what: str, layer: str, clip: Made, tmp_path: Path) -> None:
    weights = clip.part.layers[layer]
    numbers = weights.weight_q if what == "integer" else weights.weight_scale.half()
    package = Path(shutil.copytree(clip.package, tmp_path / "copy.mlpackage"))
    _flip(package, numbers.numpy().tobytes())
    with pytest.raises(BackendError, match=layer):
        audit(package, clip.part)


def _flip(package: Path, stored: bytes) -> None:
    """The lowest bit of the fourth byte of a constant, wherever the package holds it."""
    for file in (package / WEIGHT_FILE, package / MODEL):
        data = file.read_bytes()
        if stored in data:
            place = data.index(stored) + 4
            file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            return
    raise AssertionError("the package does not hold these bytes")


@pytest.mark.parametrize(("layer", "kind"), [(TABLE, "gather"), (LAYER, "linear")])
def test_a_layer_in_float_is_named(layer: str, kind: str, tmp_path: Path) -> None:
    """The program of a part without the layer, against the part with it."""
    part = clip_part()
    with pytest.raises(BackendError, match=f"{kind} .* runs with float weights"):
        made(in_float(part, layer), tmp_path)
    with pytest.raises(BackendError, match=f"{kind} .* runs with float weights; nearest is {layer};"):
        audit(tmp_path / "text_encoder.mlpackage", part)


def test_scales_that_fp16_does_not_hold_are_exact(tmp_path: Path) -> None:
    """Factors behind the product, or looked up with the row, and the audit finds one that differs."""
    part = smaller(smaller(clip_part(), TABLE, 2.0**-26), LAYER, 2.0**-26)
    tiny = made(part, tmp_path)
    assert tiny.error() < 0.01
    for layer in (TABLE, LAYER):
        with pytest.raises(BackendError, match=rf"scales of .*{layer} differ"):
            audit(tiny.package, other_scale(part, layer))
    assert np.float16(part.layers[LAYER].weight_scale[0]) < 2.0**-14


def test_threads_are_refused(clip: Made) -> None:
    with pytest.raises(BackendError, match="threads cannot be set for target 'coreml'"):
        open_part(clip.package, ["ids", "mask"], ["hidden", "pooled"], threads=2)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("name", PIPELINES)
def test_the_parts_of_a_pipeline_are_close_to_fp32(name: str, precision: str, tmp_path: Path) -> None:
    settings = Settings.model_validate({"precision": precision})
    made = pipeline_of(name, tmp_path, write_part, open_part, settings)
    assert all(f"{precision} arithmetic" in row["precision"] for row in made["parts"])
    assert all(row["cosine"] > 0.998 for row in made["parts"] if row["cosine"] is not None)
    assert all(row["psnr"] > 45 for row in made["parts"] if row["psnr"] is not None)
