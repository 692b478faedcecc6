"""The held-out reference comes back as it was saved, and a file whose tensors do not belong together is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dq_toolchain.toolchain.disk.files import read_tensors, write_tensors
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.reference import FILE, Reference
from dq_toolchain.toolchain.sampler.conditioning import Conditioning

SEEDS, CALLS, LATENT = 3, 2, (1, 4, 4)
REMEDY = "make it again"


def reference(noise: bool = True, guided: bool = True, program: bool = False) -> Reference:
    """Random numbers, no two tensors alike."""
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    cond = {"encoder_hidden_states": some(SEEDS, 5, 8), "class_labels": torch.arange(SEEDS)}
    uncond = {name: torch.zeros_like(value) for name, value in cond.items()} if guided else {}
    return Reference(
        start=some(SEEDS, *LATENT),
        conditioning=Conditioning(cond, uncond),
        step_noise=some(CALLS, SEEDS, *LATENT) if noise else None,
        fp32_latents=some(CALLS + 1, SEEDS, *LATENT),
        simulation_latents=some(CALLS + 1, SEEDS, *LATENT),
        simulation_outputs=some(CALLS, SEEDS, *LATENT),
        fp32_outputs_at_simulation=some(CALLS, SEEDS, *LATENT),
        program_latents=some(CALLS + 1, SEEDS, *LATENT) if program else None,
    )


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("program", [True, False])
def test_what_was_saved_comes_back_bit_for_bit(noise: bool, guided: bool, program: bool, tmp_path: Path) -> None:
    made = reference(noise, guided, program)
    made.save(tmp_path / FILE)
    loaded = Reference.load(tmp_path / FILE, REMEDY)
    assert (loaded.seeds, loaded.calls) == (SEEDS, CALLS)
    for field in fields(Reference):
        one, other = getattr(made, field.name), getattr(loaded, field.name)
        if isinstance(one, Tensor):
            assert torch.equal(one, other), field.name
    assert (loaded.step_noise is None, loaded.program_latents is None) == (not noise, not program)
    assert loaded.expected_latents is (loaded.program_latents if program else loaded.simulation_latents)
    for side in ("cond", "uncond"):
        one, other = getattr(made.conditioning, side), getattr(loaded.conditioning, side)
        assert set(one) == set(other)
        assert all(torch.equal(one[name], other[name]) for name in one)


Tensors = dict[str, Tensor]

DAMAGE: dict[str, Callable[[Tensors], Tensors]] = {
    "a tensor is missing": lambda t: {n: v for n, v in t.items() if n != "start"},
    "a tensor too many": lambda t: t | {"other": torch.zeros(1)},
    "no seeds": lambda t: {n: v[:0] if n == "start" else v for n, v in t.items()},
    "a call too few": lambda t: t | {"fp32_latents": t["fp32_latents"][1:]},
    "a seed too few": lambda t: t | {"simulation_latents": t["simulation_latents"][:, 1:]},
    "the program's rollout a seed too few": lambda t: t | {"program_latents": t["simulation_latents"][:, 1:]},
    "noise of other calls": lambda t: t | {"step_noise": t["step_noise"][1:]},
    "half precision": lambda t: t | {"simulation_outputs": t["simulation_outputs"].half()},
    "a row of conditioning too few": lambda t: t | {"cond.class_labels": t["cond.class_labels"][1:]},
    "labels that are no numbers": lambda t: t | {"cond.class_labels": t["cond.class_labels"] > 0},
    "uncond lacks a keyword": lambda t: {n: v for n, v in t.items() if n != "uncond.class_labels"},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_tensors_that_do_not_belong_together_are_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / FILE
    reference().save(path)
    write_tensors(path, {name: value.contiguous() for name, value in DAMAGE[damage](read_tensors(path, "")).items()})
    with pytest.raises(ArtifactError) as caught:
        Reference.load(path, REMEDY)
    said = str(caught.value)
    assert str(path) in said
    assert said.endswith(REMEDY)
    assert "\n" not in said
    assert len(said) < 1000


def test_a_file_of_other_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no tensors")
    with pytest.raises(ArtifactError, match=REMEDY):
        Reference.load(tmp_path / FILE, REMEDY)


def test_seeds_and_calls_are_those_of_the_tensors() -> None:
    made = reference()
    assert replace(made, start=made.start[:1]).seeds == 1
    assert replace(made, simulation_outputs=made.simulation_outputs[:1]).calls == 1
