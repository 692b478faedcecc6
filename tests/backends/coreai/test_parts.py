"""Text encoders and decoders as assets: the part's function, its integers, and every planted fault named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from dq_toolchain.backends.coreai.evaluator.program import functions
from dq_toolchain.backends.coreai.ir import Operation, Program
from dq_toolchain.backends.coreai.parts import open_part, write_part
from dq_toolchain.backends.coreai.proof.file import prove_part
from dq_toolchain.backends.coreai.proof.reading import LOOKUP, PRODUCTS, UNPACKED, source
from dq_toolchain.backends.coreai.settings import Settings
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.bundle import Operation as Row
from dq_toolchain.toolchain.parts.part import Part
from tests.backends.changed_parts import other_bias, other_integer, other_scale, smaller
from tests.backends.coreai.planted import constant_of, new_constant, planted, replaced
from tests.backends.whole_parts import PIPELINES, pipeline_of
from tests.tiny_parts import KL, TINY, calls_of, clip_part, decoder_part, encoder_part, t5_part

TABLE, LAYER, PROJECTION = "embeddings.token_embedding", "encoder.layers.1.mlp.fc1", "text_projection"


@dataclass(frozen=True)
class Made:
    part: Part
    half: bool
    asset: Path
    operations: Mapping[tuple[str, str], Row]

    def error(self) -> float:
        """Largest difference from the part in float32, executed by Apple and by the evaluator."""
        names = [[port.name for port in ports] for ports in (self.part.inputs, self.part.outputs)]
        execute, module = open_part(self.asset, names[0], names[1]), self.part.build()
        ours = functions(prove_part(self.asset, self.part, self.half))["main"]
        errors = []
        for call in calls_of(self.part):
            for got in (execute(call), ours(call)):
                pairs = zip(names[1], module(*call.values()), strict=True)
                errors += [(got[n] - want).abs().max() for n, want in pairs]
        return float(torch.stack(errors).max())


def made(part: Part, folder: Path, half: bool = True) -> Made:
    name, rows = write_part(part, folder, Settings(), half)
    return Made(part, half, folder / name, {(row.name, row.arithmetic): row for row in rows})


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """CLIP with pooled output, in fp16."""
    return made(clip_part(), tmp_path_factory.mktemp("clip"))


def test_clip_in_fp16_is_the_part(clip: Made) -> None:
    assert clip.error() < 0.01
    assert clip.operations["batch_matmul", "float x int8"].count == len(clip.part.layers) - 1
    assert clip.operations[UNPACKED, "float"].count == len(clip.part.layers)
    assert clip.operations[LOOKUP, "float"].count == 1


def test_t5_in_fp32_is_the_part_to_the_last_bits(tmp_path: Path) -> None:
    assert made(t5_part(), tmp_path, half=False).error() < 1e-5


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
        prove_part(encoder.asset, change(part, layer), True)


def test_latents_with_a_mean_and_a_deviation_are_unscaled_in_float32(tmp_path: Path) -> None:
    """As Playground 2.5 has them: float32 numbers that fp16 weights do not take."""
    config = {**KL, "latents_mean": [0.5, -1.0, 2.0, 0.0], "latents_std": [5.0, 4.0, 3.0, 2.0]}
    assert made(decoder_part(config), tmp_path).error() < 0.01


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
        prove_part(clip.asset, change(clip.part, layer), True)


def test_a_bias_that_differs_is_named(clip: Made) -> None:
    with pytest.raises(BackendError, match=f"the bias of {LAYER} differs"):
        prove_part(clip.asset, other_bias(clip.part, LAYER), True)


class Place:
    """The operations of one layer."""

    def __init__(self, program: Program, part: Part, layer: str) -> None:
        self.operand = 0 if layer == TABLE else 1
        self.program, wanted = program, part.layers[layer].weight_q.numpy()
        for op in program.functions["main"].operations:
            unpack = source(op.operands[self.operand]) if op.name in (LOOKUP, *PRODUCTS) else None
            if unpack is None or unpack.name != UNPACKED:
                continue
            found = program.constant(unpack.operands[0])
            if found is not None and np.array_equal(found, wanted):
                self.user, self.weight, self.scale = op, constant_of(unpack, 0), constant_of(unpack, 1)
                return
        raise AssertionError(f"{layer} is not in the program")

    def numbers(self, op: Operation) -> np.ndarray:
        found = self.program.constant(op.out)
        assert found is not None
        return found.copy()


def integer_moved(at: Place) -> None:
    numbers = at.numbers(at.weight)
    numbers.reshape(-1)[3] ^= 1
    replaced(at.weight, numbers)


def scale_moved(at: Place) -> None:
    numbers = at.numbers(at.scale)
    numbers.reshape(-1)[3] = np.nextafter(numbers.reshape(-1)[3], np.float16(1))
    replaced(at.scale, numbers)


def computed_in_float(at: Place) -> None:
    weight = at.numbers(at.weight) * at.numbers(at.scale)
    weight = weight if at.operand == 0 else weight.T
    at.user.raw.operands[at.operand] = new_constant(weight, "f16", at.user, "in_float")


FAULTS = {
    "one bit of a weight": (integer_moved, "has integers of no layer that is left; nearest is {layer};"),
    "one step of a scale": (scale_moved, "scales of .*{layer} differ"),
    "a layer in float": (computed_in_float, "runs with float weights"),
}


@pytest.mark.parametrize("layer", [TABLE, LAYER])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_file_is_found_and_named(fault: str, layer: str, clip: Made, tmp_path: Path) -> None:
    plant, text = FAULTS[fault]
    asset = planted(clip.asset, tmp_path, lambda program: plant(Place(program, clip.part, layer)))
    with pytest.raises(BackendError, match=text.format(layer=layer)) as error:
        prove_part(asset, clip.part, True)
    assert layer in str(error.value)


def test_scales_that_fp16_does_not_hold_are_exact(tmp_path: Path) -> None:
    """Factors behind the product, or looked up with the row, and the audit finds one that differs."""
    part = smaller(smaller(clip_part(), TABLE, 2.0**-26), LAYER, 2.0**-26)
    tiny = made(part, tmp_path)
    assert tiny.error() < 0.01
    for layer in (TABLE, LAYER):
        with pytest.raises(BackendError, match=rf"scales of .*{layer} differ"):
            prove_part(tiny.asset, other_scale(part, layer), True)
    assert np.float16(part.layers[LAYER].weight_scale[0]) < 2.0**-14


def test_threads_are_refused(clip: Made) -> None:
    with pytest.raises(BackendError, match="threads cannot be set for target 'coreai'"):
        open_part(clip.asset, ["ids", "mask"], ["hidden", "pooled"], threads=2)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("name", PIPELINES)
def test_the_parts_of_a_pipeline_are_close_to_fp32(name: str, precision: str, tmp_path: Path) -> None:
    settings = Settings.model_validate({"precision": precision})
    made = pipeline_of(name, tmp_path, write_part, open_part, settings)
    assert all(f"{precision} arithmetic" in row["precision"] for row in made["parts"])
    assert all(row["cosine"] > 0.998 for row in made["parts"] if row["cosine"] is not None)
    assert all(row["psnr"] > 45 for row in made["parts"] if row["psnr"] is not None)
