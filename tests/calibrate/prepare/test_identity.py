"""What decides a stage is what it consumes: whatever changes that, by whichever setting, is never served an older checkpoint."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import metadata
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import save_file

import dq_toolchain
from dq_toolchain.calibrate import methods
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.methods import effective, names, resolve
from dq_toolchain.calibrate.prepare import identity
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.work.constants import constants_of
from dq_toolchain.toolchain.disk.digest import digest_of
from dq_toolchain.toolchain.recipe.effort import TABLE
from dq_toolchain.toolchain.recipe.sections import Recipe
from tests.calibrate.conftest import tiny_recipe
from tests.tiny import noise, scheduler, tiny_condition_unet, tiny_unet, write_tiny_model

STAGES = ("rollouts", "ranges", "budget", "fit")
ALL, RANGES, BUDGET, FIT = STAGES, STAGES[1:], STAGES[2:], STAGES[3:]
NONE: tuple[str, ...] = ()

CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    # field: what the recipe says beside it, its other value, the stages that it decides
    "sampler.steps": ({}, {"steps": 5}, ALL),
    "sampler.eta": ({}, {"eta": 0.5}, ALL),
    "sampler.guidance": ({"conditioning": {"null_label": 10}}, {"guidance": 2.0}, ALL),
    "conditioning.null_label": ({}, {"null_label": 3}, ALL),
    "quantize.weight_bits": ({}, {"weight_bits": 4}, BUDGET),
    "quantize.budget": ({}, {"budget": "size=0.5"}, BUDGET),  # some layers get 4 bits: the fit is another
    "quantize.edge_bits": ({}, {"edge_bits": 4}, BUDGET),
    "quantize.activation_bits": ({}, {"activation_bits": 6}, RANGES),
    "quantize.scheme": ({}, {"scheme": "affine"}, RANGES),
    "quantize.attention": ({}, {"attention": "int8"}, RANGES),
    "quantize.outputs": ({}, {"outputs": "fitted"}, RANGES),
    "quantize.step_vectors": ({}, {"step_vectors": True}, ALL),
    "quantize.split": ({}, {"split": False}, ALL),
    "quantize.step_groups": ({}, {"step_groups": 3}, RANGES),
    "quantize.keep_float": ({}, {"keep_float": ["conv_in"]}, RANGES),
    "calibrate.samples": ({}, {"samples": 4}, ALL),
    "calibrate.batch": ({}, {"batch": 2}, FIT),
    "calibrate.ranges": ({}, {"ranges": "minmax"}, ("ranges",)),
    "calibrate.percentile": ({"calibrate": {"ranges": "percentile"}}, {"percentile": 90.0}, ("ranges",)),
    "calibrate.rounding": ({}, {"rounding": "nearest"}, FIT),
    "calibrate.warmup": ({}, {"warmup": 5}, FIT),
    "calibrate.iterations": ({}, {"iterations": 5}, FIT),
    "calibrate.settling": ({}, {"settling": 5}, FIT),
    "calibrate.steps": ({}, {"steps": "growth"}, FIT),
    "calibrate.horizon": ({}, {"horizon": 3}, FIT),
    "calibrate.gradient": ({}, {"gradient": "surrogate"}, FIT),
    "calibrate.start": ({}, {"start": "inherited"}, FIT),
    "calibrate.group_iterations": ({}, {"group_iterations": 5}, FIT),
    "calibrate.scale_lr": ({}, {"scale_lr": 0.5}, FIT),
    "calibrate.rounding_lr": ({}, {"rounding_lr": 0.5}, FIT),
    "calibrate.method": ({}, {"method": "qdiffusion"}, FIT),
    "blocks.rows": ({"calibrate": {"method": "qdiffusion"}}, {"rows": 6}, FIT),
    "blocks.batch": ({"calibrate": {"method": "qdiffusion"}}, {"batch": 3}, FIT),
    "blocks.iterations": ({"calibrate": {"method": "qdiffusion"}}, {"iterations": 7}, FIT),
    "blocks.activation_iterations": ({"calibrate": {"method": "qdiffusion"}}, {"activation_iterations": 7}, FIT),
    "run.seed": ({}, {"seed": 5}, ALL),
    "run.precision": ({}, {"precision": "bf16"}, ALL),
    "run.offload": ({}, {"offload": True}, BUDGET),
    "run.parallel_steps": ({}, {"parallel_steps": 3}, ALL),
}
BY_VALUE = {"model.path", "model.variant", "model.lora", "model.lora_scale", "model.scheduler", "conditioning.file",
            "conditioning.prompts", "conditioning.negative_prompt", "sampler.clip", "run.device", "calibrate.effort"}  # fmt: skip
"""What these come to is consumed, not what they say: see the tests on values below."""
NO_PART = {"run.out", "model.vae"}


def _of(recipe: Recipe, context: Context | None = None) -> dict[str, str]:
    """The identities of all stages; activation parameters in the middle are fixed, which are theirs by value."""
    method = resolve(recipe.calibrate.method)
    recipe = effective(recipe)
    context = setup(recipe, method) if context is None else context
    rolled = identity.of_rollouts(context)
    shape = (len(context.step_groups), len(context.prepared.sites))
    scale, zero_point = torch.ones(shape), torch.zeros(shape, dtype=torch.int32)
    return {
        "rollouts": rolled,
        "ranges": identity.of_ranges(rolled, context, recipe, None),
        "budget": identity.of_budget(rolled, context, recipe, scale, zero_point),
        "fit": identity.of_fit(rolled, context, recipe, method, scale, zero_point, None),
    }


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    return {stage for stage in STAGES if before[stage] != after[stage]}


def test_every_field_of_the_recipe_is_accounted_for() -> None:
    sections = ("model", "sampler", "conditioning", "quantize", "calibrate", "blocks", "run")
    fields = {f"{section}.{name}" for section in sections for name in _fields(Recipe.model_fields[section].annotation)}
    assert fields == set(CHANGES) | BY_VALUE | NO_PART


def _fields(section: Any) -> Iterator[str]:
    assert issubclass(section, BaseModel)
    yield from section.model_fields


@pytest.mark.parametrize("field", CHANGES)
def test_a_changed_setting_changes_the_stages_that_it_decides(field: str, tiny_model: Path, tmp_path: Path) -> None:
    beside, other, decided = CHANGES[field]
    section = field.partition(".")[0]
    recipe = tiny_recipe(tiny_model, tmp_path, **beside)
    changed = tiny_recipe(tiny_model, tmp_path, **{**beside, section: {**beside.get(section, {}), **other}})
    assert _changed(_of(recipe), _of(changed)) == set(decided)


def test_where_things_lie_changes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tiny_model, tmp_path / "a")
    copy = tmp_path / "copy"
    copy.symlink_to(tiny_model)
    assert _of(recipe) == _of(tiny_recipe(copy, tmp_path / "b"))


def test_weights_and_sampler_count_by_what_they_are(tmp_path: Path) -> None:
    unet = tiny_unet()
    before = _of(tiny_recipe(write_tiny_model(tmp_path / "model", unet), tmp_path))
    with torch.no_grad():
        unet.conv_in.weight[0, 0, 0, 0] += 1e-6
    assert _changed(before, _of(tiny_recipe(write_tiny_model(tmp_path / "other", unet), tmp_path))) == set(ALL)
    scheduler().from_config(scheduler().config, timestep_spacing="linspace").save_pretrained(tmp_path / "sampler")
    recipe = tiny_recipe(tmp_path / "model", tmp_path)
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"scheduler": tmp_path / "sampler"})})
    assert _changed(before, _of(recipe)) == set(ALL)


def test_conditioning_counts_by_what_its_file_holds(tmp_path: Path) -> None:
    model, file = write_tiny_model(tmp_path / "model", tiny_condition_unet()), tmp_path / "text.safetensors"

    def found(value: float) -> dict[str, str]:
        save_file({"cond.encoder_hidden_states": torch.full((2, 5, 8), value)}, file)
        return _of(tiny_recipe(model, tmp_path / "out", conditioning={"file": file}))

    assert _changed(found(1.0), found(2.0)) == set(ALL)
    assert found(1.0) == found(1.0)


def test_what_stages_hand_on_counts_by_value(tiny_model: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tiny_model, tmp_path)
    method, context = resolve("accuquant"), setup(recipe)
    shape = (2, len(context.prepared.sites))
    scale, zero_point, chosen = (
        torch.ones(shape),
        torch.zeros(shape, dtype=torch.int32),
        torch.ones(4, 8, dtype=torch.bool),
    )

    def fit(scale: torch.Tensor, chosen: torch.Tensor, context: Context = context) -> str:
        return identity.of_fit("", context, recipe, method, scale, zero_point, chosen)

    swapped = scale.clone()
    swapped[0, :2] = torch.tensor([2.0, 1.0])
    fewer = chosen.clone()
    fewer[0, 0] = False
    sites = list(context.prepared.sites)
    sites[0], sites[1] = sites[1], sites[0]
    reordered = replace(context, prepared=replace(context.prepared, sites=tuple(sites)))
    assert len({fit(scale, chosen), fit(swapped, chosen), fit(scale, fewer), fit(scale, chosen, reordered)}) == 4
    ranges = {
        identity.of_ranges("", each, recipe, part) for each in (context, reordered) for part in (None, chosen, fewer)
    }
    assert len(ranges) == 6


@pytest.mark.parametrize(
    "name", ["multistep.fit.AVERAGE", "ranges.observer.CANDIDATES", "blocks.adaround.PENALTY", "bits.budget.PROBES"]
)
def test_a_constant_of_the_code_decides_and_is_recorded(
    name: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(tiny_model, tmp_path, calibrate={"method": "qdiffusion" if "blocks" in name else "accuquant"})
    context = setup(recipe)
    module, _, constant = name.rpartition(".")
    loaded = importlib.import_module(f"dq_toolchain.calibrate.{module}")

    def both() -> tuple[dict[str, str], dict[str, Any]]:
        used = recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update={"budget": "size=0.5"})})
        return _of(recipe, context), identity.hyper_parameters(
            used, resolve(recipe.calibrate.method), context.step_groups
        )

    before = both()
    monkeypatch.setattr(loaded, constant, getattr(loaded, constant) * 2)
    after = both()
    assert _changed(before[0], after[0])
    assert before[1] != after[1]


def test_every_constant_of_a_method_is_in_its_record() -> None:
    """By looking at the files: a constant that is added later is in the record without being named there."""
    recorded = {key for name in names() for key in resolve(name).hyper_parameters()}
    own = {
        key
        for module in pkgutil.iter_modules(methods.__path__)
        for key in constants_of(f"methods.{module.name}")
        if module.name not in ("accuquant", *methods.SHARED)
    }
    assert own == {key for key in recorded if key.startswith("methods.")}
    shared = {key.split(".")[-1] for name in methods.SHARED for key in constants_of(f"methods.{name}")}
    assert shared <= {key.split(".")[-1] for key in recorded}  # under the names of the methods that import them
    assert resolve("ptq4dm").hyper_parameters() != resolve("ptq4dm-paper").hyper_parameters()
    both = resolve("ptq4dm+tac").hyper_parameters()
    assert {"ptq4dm.deviation", "methods.tac.TIE"} <= set(both)


DIGESTS: list[Callable[[], dict[str, torch.Tensor]]] = [
    lambda: {"a": torch.zeros(2, 3)},
    lambda: {"a": torch.zeros(3, 2)},
    lambda: {"b": torch.zeros(2, 3)},
    lambda: {"a": torch.zeros(2, 3, dtype=torch.int32)},
    lambda: {"a": torch.zeros(2), "b": torch.zeros(3)},
    lambda: {"a": noise(2)},
    lambda: {"a": torch.tensor(0.0)},
    lambda: {"a": torch.zeros(0)},
]


def test_digests_tell_names_types_shapes_and_numbers_apart() -> None:
    found = [digest_of(make()) for make in DIGESTS]
    assert len(set(found)) == len(DIGESTS)
    assert found == [digest_of({name: value.clone() for name, value in make().items()}) for make in DIGESTS]
    view = torch.arange(6.0).view(2, 3).t()
    assert digest_of({"a": view}) == digest_of({"a": view.contiguous()})


def test_an_effort_counts_by_the_settings_that_it_comes_to(tiny_model: Path, tmp_path: Path) -> None:
    """Another name for equal settings continues their checkpoints; the settings that differ start afresh."""
    row = TABLE["wide"]["quick"].sections()
    same = tiny_recipe(tiny_model, tmp_path, **row)
    named = same.model_copy(update={"calibrate": same.calibrate.model_copy(update={"effort": "best"})})
    assert _of(same) == _of(named)
    small = {"samples": 8, "warmup": 4, "settling": 2, "group_iterations": 2}
    quick, best = (tiny_recipe(tiny_model, tmp_path, calibrate={"effort": e, **small}) for e in ("quick", "best"))
    assert _of(quick) == _of(best)  # what is left of the rows is alike
    narrow = tiny_recipe(tiny_model, tmp_path, quantize={"weight_bits": 4}, calibrate=small)
    own = tiny_recipe(tiny_model, tmp_path, quantize={"weight_bits": 4}, calibrate={**small, "scale_lr": 0.5})
    assert _changed(_of(narrow), _of(own)) == set(FIT)


def test_versions_are_known_where_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host may have the sources on its path and no more."""
    known = identity.versions()

    def of_libraries(name: str) -> str:
        if name == "dq-toolchain":
            raise PackageNotFoundError(name)
        return metadata.version(name)

    monkeypatch.setattr(identity, "version", of_libraries)
    assert identity.versions() == known
    assert known["dq-toolchain"] == dq_toolchain.__version__
