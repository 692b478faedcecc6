"""The key image_to_image: read as it was written, refused where it makes no sense, kept or left out by an export."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from scripts.golden.generate import IMAGE_CASES, write_case

from dq_toolchain.backends.common.generate import load_pipeline
from dq_toolchain.toolchain.errors import ArtifactError, BackendError, RecipeError
from dq_toolchain.toolchain.formats.bundle import Bundle
from dq_toolchain.toolchain.parts.artifact import PartsArtifact, PartsReference, with_images
from dq_toolchain.toolchain.parts.beginning import from_picture
from dq_toolchain.toolchain.parts.image_to_image import ImageToImage
from dq_toolchain.toolchain.parts.pipeline import PictureSize, Pipeline
from dq_toolchain.toolchain.parts.prompting import Wish, check_wish
from dq_toolchain.toolchain.sampler.starts import Start
from tests.tiny_parts import decoder_part, encoder_part

GOLDEN = Path(__file__).parents[3] / "runtime_samples" / "golden" / "generate"
STARTS = tuple(Start(k, 0.5, 0.5) for k in range(2))
IMAGE = ImageToImage(
    channels=3, height=8, width=8, outputs=("mean", "deviation"), start_rounds="up", starts={2: STARTS, 1: STARTS[:1]}
)
PIPELINE = Pipeline(
    pipeline="StableDiffusionPipeline", tokenizers=(), encoders=(), conditioning={}, constants=None,
    zeros_without_negative=False, decoder=PictureSize(channels=3, height=8, width=8), image=IMAGE,
)  # fmt: skip


def artifact(**changes: Any) -> PartsArtifact:
    reference = PartsReference(prompts=(), conditioning={}, latents=None, pictures=None)
    return PartsArtifact(
        pipeline=replace(PIPELINE, **changes), parts=(encoder_part(), decoder_part()), constants={}, reference=reference
    )


def test_a_pipeline_survives_json() -> None:
    data = json.loads(json.dumps(PIPELINE.to_json()))
    assert Pipeline.from_json(data, "pipeline.json", "") == PIPELINE
    assert PIPELINE.parts == ("vae_encoder", "decoder")
    assert PIPELINE.outputs_of("vae_encoder") == ("mean", "deviation")
    bundled = PIPELINE.with_programs({"vae_encoder": "parts/e", "decoder": "parts/d"})
    assert (bundled.program_of("vae_encoder"), bundled.program_of("decoder")) == ("parts/e", "parts/d")
    plain = replace(PIPELINE, image=None)
    assert plain.to_json().keys() == data.keys() - {"image_to_image"}
    assert plain.parts == ("decoder",)


@pytest.mark.parametrize(
    "change",
    [{"outputs": ["deviation"]}, {"start_rounds": "nearest"}, {"starts": {}}, {"starts": {"3": []}}, {"height": "x"},
     {"starts": {"2": [{"call": 0, "signal": 1.0, "noise": 1.0, "table": {}}] * 2}}],
)  # fmt: skip
def test_a_key_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    data = PIPELINE.to_json()
    data["image_to_image"] |= change
    with pytest.raises(ArtifactError, match=r"pipeline\.json is damaged"):
        Pipeline.from_json(data, "pipeline.json", "do it again")


def test_an_export_keeps_the_starts_that_its_bundle_runs_or_nothing() -> None:
    found = artifact()
    kept = with_images(found, {2}).pipeline.image
    assert kept is not None
    assert list(kept.starts) == [2]
    assert with_images(found, None).pipeline.image == IMAGE
    without = found.without_images()
    assert without.pipeline.image is None
    assert [part.name for part in without.parts] == ["decoder"]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "holds the network alone"),
        (artifact(image=None), "calibrate again"),
        (artifact(image=None, pipeline="PixArtAlphaPipeline"), "begins with a picture for PixArtAlphaPipeline"),
        (
            artifact(image=None, pipeline="LatentConsistencyModelPipeline"),
            "LatentConsistencyModelPipeline chooses other",
        ),
    ],
)
def test_what_cannot_begin_with_a_picture_is_refused(found: PartsArtifact | None, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        with_images(found, None)


def test_a_wish_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    wish = Wish(image=tmp_path / "in.png", strength=0.5)
    check_wish(wish, PIPELINE, takes_labels=False)
    with pytest.raises(RecipeError, match="export it with --image-to-image"):
        check_wish(wish, replace(PIPELINE, image=None), takes_labels=False)
    with pytest.raises(RecipeError, match="give --image"):
        check_wish(Wish(strength=0.5), PIPELINE, takes_labels=False)
    with pytest.raises(BackendError, match="no starts with a picture for 7 steps, but for 2, 1"):
        from_picture(wish, PIPELINE, 7)
    assert from_picture(Wish(), PIPELINE, 2) is None


@pytest.mark.parametrize("case", IMAGE_CASES)
def test_the_golden_pipelines_are_what_the_host_makes(case: str, tmp_path: Path) -> None:
    write_case(IMAGE_CASES[case], tmp_path)
    for path in (path for path in (GOLDEN / case).rglob("*") if path.is_file()):
        ours = tmp_path / path.relative_to(GOLDEN / case)
        if path.suffix == ".safetensors":
            got, wanted = load_file(ours), load_file(path)
            assert got.keys() == wanted.keys()
            for name in wanted:
                np.testing.assert_allclose(got[name], wanted[name], rtol=1e-5, atol=1e-5)
        elif path.name != "bundle.json":  # holds hashes of the tensors
            assert ours.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("case", IMAGE_CASES)
def test_the_golden_pipelines_are_read_as_they_were_made(case: str) -> None:
    folder, made = GOLDEN / case, IMAGE_CASES[case]
    assert made.image is not None
    bundle = Bundle.load(folder / "bundle").at(made.other_steps)
    wish = Wish(image=folder / "image.png", strength=made.image.strength)
    given = from_picture(wish, load_pipeline(folder / "bundle"), bundle.steps)
    assert given is not None
    replay = load_file(folder / "replay.safetensors")
    np.testing.assert_array_equal(given.picture.numpy(), replay["vae_encoder.picture"])
    rest = given.start.remaining(bundle.table)
    guided = 2 if bundle.guidance != 1.0 else 1
    assert replay["timesteps"].tolist() == pytest.approx([t for t in rest.timesteps for _ in range(guided)])
