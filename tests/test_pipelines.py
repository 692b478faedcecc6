"""Pipelines that diffusers' own ``save_pretrained`` wrote go through calibrate and export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from scripts.published.encoders import POOLED, TOKENS

from dq_toolchain.calibrate.compare.cells import load_samples
from dq_toolchain.calibrate.compare.command import compare
from dq_toolchain.calibrate.compare.plan import Request
from dq_toolchain.calibrate.compare.progress import GridReporter
from dq_toolchain.calibrate.data.conditioning import conditioning_bank
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.checks import MINIMUM_SEEDS
from dq_toolchain.toolchain.cli.entry import run_command
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.models.decoder import load_decoder
from dq_toolchain.toolchain.models.loading import load_model
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Recipe
from tests.tiny_chat import qwen_image, z_image
from tests.tiny_pipelines import (
    PROMPTS,
    WIDTH,
    dit,
    flux,
    flux2,
    pixart,
    sana,
    save_lcm,
    save_sd,
    save_sdxl,
    save_transformer,
    sd3,
)

FEW: dict[str, dict[str, Any]] = {
    "sampler": {"steps": 3, "guidance": 4.0},
    "quantize": {"step_groups": 2},
    "calibrate": {"samples": 3, "batch": 2, "warmup": 2, "settling": 2, "group_iterations": 1, "horizon": 2},
    "blocks": {"rows": 6, "batch": 3, "iterations": 2, "activation_iterations": 1},
    "reference": {"seeds": 2},
}


def recipe(model: Path, out: Path, **sections: dict[str, Any]) -> Recipe:
    merged = {name: {**FEW.get(name, {}), **sections.get(name, {})} for name in {**FEW, **sections}}
    return load_recipe(
        None,
        {
            **merged,
            "model": {"path": model, **sections.get("model", {})},
            "run": {"out": out, **sections.get("run", {})},
        },
    )


def prompts(folder: Path) -> dict[str, Any]:
    file = folder / "prompts.txt"
    file.write_text("# three prompts\n" + "\n\n".join(PROMPTS) + "\n")
    return {"prompts": file}


PIPELINES = {
    "sd15": lambda folder: save_sd(folder),
    "sd21": lambda folder: save_sd(folder, prediction_type="v_prediction", use_linear_projection=True),
    "lcm": save_lcm,
    "sdxl": save_sdxl,
}


TRANSFORMERS = {"dit": dit, "pixart": pixart, "sd3": sd3, "sana": sana, "flux": flux, "flux2": flux2, "z_image": z_image,
                "qwen_image": qwen_image}  # fmt: skip
UNGUIDED = {"qwen_image": {"guidance": 1.0}}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "sd21" else ()) for name in PIPELINES]
)
def test_a_pipeline_calibrates_from_prompts(name: str, tmp_path: Path) -> None:
    folder = PIPELINES[name](tmp_path / name)
    settings = recipe(folder, tmp_path / "out", conditioning=prompts(tmp_path))
    _, artifact, reference = calibrate(settings, Reporter(quiet=True))
    states = reference.conditioning.cond["encoder_hidden_states"]
    assert states.shape == (2, TOKENS, 2 * WIDTH if name == "sdxl" else WIDTH)
    assert not torch.equal(states[0], states[1])
    assert artifact.guidance == (1.0 if name == "lcm" else 4.0)
    assert artifact.table.stochastic == (name == "lcm")
    assert artifact.table.prediction_type == ("v_prediction" if name == "sd21" else "epsilon")
    keywords = {"sd15": set(), "sd21": set(), "lcm": {"timestep_cond"}, "sdxl": {"text_embeds", "time_ids"}}[name]
    assert set(reference.conditioning.cond) == {"encoder_hidden_states"} | keywords
    assert set(reference.conditioning.uncond) == (set() if name == "lcm" else set(reference.conditioning.cond))
    error = (reference.simulation_latents[-1] - reference.fp32_latents[-1]).norm() / reference.fp32_latents[-1].norm()
    assert 0 < float(error) < 0.2


@pytest.mark.parametrize("network", TRANSFORMERS.values(), ids=TRANSFORMERS)
@pytest.mark.parametrize("method", ["accuquant", "qdiffusion"])
def test_a_transformer_calibrates(network: Any, method: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = save_transformer(network(), tmp_path / "model")
    file = folder / "conditioning.safetensors"
    conditioning = {"file": file} if file.is_file() else {"null_label": 10}
    sampler = UNGUIDED.get(network.__name__, {})
    settings = recipe(
        folder, tmp_path / "out", conditioning=conditioning, calibrate={"method": method}, sampler=sampler
    )
    _, artifact, reference = calibrate(settings, Reporter(quiet=True))
    assert any("transformer_blocks.0" in site.layer or site.layer.startswith("layers.0") for site in artifact.sites)
    error = (reference.simulation_latents[-1] - reference.fp32_latents[-1]).norm() / reference.fp32_latents[-1].norm()
    assert 0 < float(error) < 0.2


@pytest.mark.parametrize(("rounding", "first"), [(None, "closed-form rounding"), ("learned", "weights")])
def test_offload_rounds_first_and_learns_scales_over_steps(rounding: str | None, first: str, tmp_path: Path) -> None:
    folder = save_sd(tmp_path / "sd")
    settings = recipe(
        folder, tmp_path / "out", conditioning=prompts(tmp_path), run={"offload": True}, quantize={"weight_bits": 4},
        calibrate={} if rounding is None else {"rounding": rounding},
    )  # fmt: skip
    _, artifact, _ = calibrate(settings, Reporter(quiet=True))
    phases = [stage.get("phase", stage.get("stage")) for stage in artifact.record["stages"]]
    assert phases[0] == first
    assert phases[-2:] == ["step group 0", "step group 1"]
    assert "settling" in phases
    assert not (tmp_path / "out" / "calibration.work").exists()


def test_encoded_prompts_are_kept_and_follow_what_they_were_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, text = save_sd(tmp_path / "sd"), prompts(tmp_path)
    model = load_model(folder)
    first = conditioning_bank(model, recipe(folder, tmp_path / "out", conditioning=text))
    assert {name: tuple(value.shape) for name, value in first.cond.items()} == {
        "encoder_hidden_states": (3, TOKENS, WIDTH)
    }
    assert first.uncond["encoder_hidden_states"].shape == (1, TOKENS, WIDTH)
    with monkeypatch.context() as patch:
        patch.setattr("diffusers.DiffusionPipeline.from_pretrained", None)  # a second time nothing is encoded
        again = conditioning_bank(model, recipe(folder, tmp_path / "out", conditioning=text))
    assert torch.equal(first.cond["encoder_hidden_states"], again.cond["encoder_hidden_states"])
    negative = conditioning_bank(
        model, recipe(folder, tmp_path / "out", conditioning={**text, "negative_prompt": "fog"})
    )
    assert not torch.equal(first.uncond["encoder_hidden_states"], negative.uncond["encoder_hidden_states"])


def test_a_prompt_that_is_cut_short_is_named(tmp_path: Path) -> None:
    folder, lines = save_sd(tmp_path / "sd"), list[str]()
    file = tmp_path / "long.txt"
    file.write_text("a fox\na red house by the sea\n")
    conditioning_bank(
        load_model(folder), recipe(folder, tmp_path / "out", conditioning={"prompts": file}), lines.append
    )
    assert lines == [f"prompt 'a red house by the sea' has 19 tokens, tokenizer takes {TOKENS}: the rest is left out"]


@torch.no_grad()
def test_prompts_are_read_as_the_pipeline_reads_them(tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    folder = save_sdxl(tmp_path / "xl")
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder)
    states, nothing, pooled, _ = pipeline.encode_prompt(list(PROMPTS), negative_prompt=["fog"] * 3)
    bank = conditioning_bank(
        load_model(folder),
        recipe(folder, tmp_path / "out", conditioning={**prompts(tmp_path), "negative_prompt": "fog"}),
    )
    torch.testing.assert_close(bank.cond["encoder_hidden_states"], states)
    torch.testing.assert_close(bank.cond["text_embeds"], pooled)
    torch.testing.assert_close(bank.uncond["encoder_hidden_states"], nothing[:1])
    assert bank.cond["text_embeds"].shape == (3, POOLED)


def test_the_two_commands_take_a_pipeline(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, file = save_sd(tmp_path / "sd"), prompts(tmp_path)["prompts"]
    few = [
        "--steps",
        "2",
        "--step-groups",
        "2",
        "--samples",
        "2",
        "--warmup",
        "1",
        "--settling",
        "1",
        "--guidance",
        "3",
    ]
    assert (
        run_command(["calibrate", "--model", str(folder), "--prompts", str(file), "--out", str(tmp_path / "out"), *few])
        == 0
    )
    out = ["--target", "tensorrt", "--out", str(tmp_path / "out")]
    assert run_command(["export", *out]) == 0
    assert run_command(["run", *out]) == 0
    assert run_command(["validate", *out, "--html", str(tmp_path / "page.html"), "--vae", str(folder)]) in (0, 1)
    assert (tmp_path / "page.html").read_text().count(
        "data:image/png"
    ) == 4 + 3 + 5  # the worst seeds, and the way from the prompt, have pictures of their own
    assert run_command(["validate", *out, "--vae", str(folder)]) == 2
    assert "--vae is for the page" in capfd.readouterr().err


QUANTIZE: dict[str, dict[str, Any]] = {
    "qnn": {"activation_bits": 16, "outputs": "range", "step_vectors": True},
}
"""What a target takes, where that is not the default."""
FORMS = {("sana", "executorch"): ["--step-groups-as", "methods"]}
"""What a target takes depthwise convolutions in."""


@pytest.mark.slow
@pytest.mark.parametrize("target", ["executorch", "coreml", "coreai", "tensorrt", "qnn"])
@pytest.mark.parametrize("name", [*PIPELINES, *TRANSFORMERS])
def test_every_family_is_exported_and_judged(
    name: str, target: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if name in PIPELINES:
        folder, conditioning = PIPELINES[name](tmp_path / name), prompts(tmp_path)
    else:
        torch.manual_seed(0)
        folder = save_transformer(TRANSFORMERS[name](), tmp_path / name)
        file = folder / "conditioning.safetensors"
        conditioning = {"file": file} if file.is_file() else {"null_label": 10}
    settings = recipe(
        folder, tmp_path / "out", conditioning=conditioning, reference={"seeds": MINIMUM_SEEDS},
        quantize=QUANTIZE.get(target, {}), sampler=UNGUIDED.get(name, {}),
    )  # fmt: skip
    calibrate(settings, Reporter(quiet=True))
    out = ["--target", target, "--out", str(tmp_path / "out")]
    exactly = (
        ["--precision", "fp32"] if target == "coreai" else []
    )  # fp16 flips roundings everywhere in such small networks
    assert run_command(["export", *out, *exactly, *FORMS.get((name, target), [])]) == 0
    if target != "coreml":
        assert run_command(["run", *out]) == 0
        capfd.readouterr()
        code = run_command(["validate", *out, "--json"])
        verdict = json.loads(capfd.readouterr().out)
        checks = [check for part in ("fidelity", "conformance", "claims") for check in verdict[part]["checks"]]
        failed = {check["name"] for check in checks if not check["passed"]}
        assert (failed, code) == (set(), 0)


def test_a_comparison_shows_pictures_not_latents(tmp_path: Path) -> None:
    folder = save_sd(tmp_path / "sd")
    file = tmp_path / "dq.toml"
    file.write_text(
        "[sampler]\nsteps = 2\n[quantize]\nstep_groups = 1\n[calibrate]\nsamples = 2\n"
        f'[conditioning]\nprompts = "{prompts(tmp_path)["prompts"]}"\n'
    )
    found = compare(Request(file, folder, tmp_path / "out", "minmax", None, None, 1, 5), GridReporter(quiet=True))
    (cell,) = (tmp_path / "out/compare/cells").glob("*/cell.json")
    samples = load_samples(cell.parent)
    size = samples["samples"].shape[-1]
    assert samples["samples"].shape == (5, 4, size, size)
    wanted = load_decoder(folder)(samples["samples"][:4])
    assert torch.equal(samples["pictures"], ((wanted + 1) * 127.5).round().to(torch.uint8))
    assert samples["fp32_pictures"].shape == samples["pictures"].shape == (4, *wanted.shape[1:])
    assert found.rows[0].seeds == (0,)
