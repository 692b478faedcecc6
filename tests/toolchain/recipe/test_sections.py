"""The recipe: who overrides whom, and every mistake in one error with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Recipe


def recipe_file(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_defaults_then_the_models_file_then_the_recipe_then_flags(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "dq.toml").write_text("[sampler]\nsteps = 11\nguidance = 2\neta = 0.5\n[conditioning]\nnull_label = 3\n")
    path = recipe_file(tmp_path, "[sampler]\nguidance = 3.5\neta = 0.25\n[quantize]\nweight_bits = 4\n")
    found = load_recipe(
        path, {"model": {"path": model}, "sampler": {"eta": 0.0, "guidance": None}, "run": {"seed": None}}
    )
    assert (found.sampler.steps, found.sampler.guidance, found.sampler.eta) == (11, 3.5, 0.0)
    assert (found.conditioning.null_label, found.quantize.weight_bits) == (3, 4)
    assert found.calibrate == Recipe().calibrate
    assert found.run == Recipe().run


def test_the_recipe_can_name_the_model_whose_own_file_counts(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "dq.toml").write_text("[sampler]\nsteps = 11\n")
    assert load_recipe(recipe_file(tmp_path, f"[model]\npath = '{model}'\n"), {}).sampler.steps == 11
    assert load_recipe(None, {"model": {"path": tmp_path / "elsewhere"}}).sampler.steps == Recipe().sampler.steps


def test_every_setting_can_be_given_and_numbers_may_be_whole(tmp_path: Path) -> None:
    text = "".join(
        f"[{name}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in section.items() if value is not None)
        for name, section in Recipe().model_dump(mode="json").items()
    )
    found = load_recipe(
        recipe_file(tmp_path, text), {"model": {"path": tmp_path}}
    )  # a folder without settings of its own
    assert found.model_copy(update={"model": Recipe().model}) == Recipe()
    assert load_recipe(recipe_file(tmp_path, "[sampler]\nguidance = 3\n"), {}).sampler.guidance == 3.0


def toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def test_all_mistakes_come_in_one_error_each_with_file_and_line(tmp_path: Path) -> None:
    path = recipe_file(
        tmp_path,
        """# a comment
[sampler]
steps = 0

[quantize]
weight_bits = 16
colour = "red"
scheme = "odd"
[nonsense]
a = 1
[calibrate]
ranges = "max"
scale_lr = nan
""",
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, {"run": {"device": "tpu", "seed": -1}})
    text = str(caught.value)
    for place in (
        ":3 [sampler] steps: got 0",
        ":6 [quantize] weight_bits: got 16",
        ":8 [quantize] scheme: got 'odd'",
        ":12 [calibrate] ranges: got 'max'",
        ":13 [calibrate] scale_lr: got nan",
    ):
        assert f"{path}{place}, input should be" in text
    assert f"{path}:7 [quantize] colour: unknown, allowed: weight_bits, " in text
    assert f"{path}:9 [nonsense]: unknown, allowed: model, sampler, " in text
    assert "--device: got 'tpu', input should be 'auto', 'cpu' or 'cuda'" in text
    assert "--seed: got -1" in text
    assert text.count("; ") == 8
    assert "\n" not in text


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("sampler.eta = 0\nsampler.steps = 0", ":2 [sampler] steps: got 0"),
        ("sampler = {steps = 0}", ":1 [sampler] steps: got 0"),
        ("sampler = 3", ":1 [sampler]: got 3, input should be a table"),
        ("[[sampler]]\nsteps = 1", ":1 [sampler]: got"),
        ("[sampler]\n'steps' = 0", ":2 [sampler] steps"),
        ("\n [ sampler ] # here\n steps= -1", ":3 [sampler] steps: got -1"),
        ("[quantize]\nbits = 1\n[quantize.weights]\nbits = 4", ":3 [quantize] weights: unknown"),
        ("steps = 3", ":1 [steps]: unknown"),
        ("[run]\nseed = 1\n[sampler]\nseed = 1", ":4 [sampler] seed: unknown"),
    ],
)
def test_the_place_is_found_in_every_way_of_writing_toml(text: str, place: str, tmp_path: Path) -> None:
    path = recipe_file(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, {})
    assert f"{path}{place}" in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "steps = '20'",
        "steps = true",
        "steps = 20.0",
        "guidance = '2'",
        "guidance = true",
        "guidance = inf",
        "eta = [0]",
        "steps = 2024-01-01",
    ],
)
def test_a_value_of_another_type_is_refused_not_converted(line: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r":2 \[sampler\] (steps|guidance|eta): got .*input should be"):
        load_recipe(recipe_file(tmp_path, f"[sampler]\n{line}\n"), {})


@pytest.mark.parametrize("text", ["[model]\npath = 3", "[conditioning]\nfile = false", "[run]\nout = 1.5"])
def test_a_path_is_text(text: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r":2 \[\w+\] \w+: got .*input should be a path in quotes"):
        load_recipe(recipe_file(tmp_path, text), {})


def test_a_mistake_in_the_models_own_file_is_placed_there(tmp_path: Path) -> None:
    (tmp_path / "dq.toml").write_text("[sampler]\nsteps = 0\n")
    with pytest.raises(RecipeError, match=r"dq\.toml:2 \[sampler\] steps"):
        load_recipe(None, {"model": {"path": tmp_path}})
    assert load_recipe(None, {"model": {"path": tmp_path}, "sampler": {"steps": 5}}).sampler.steps == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[sampler", " is not valid TOML"),
        (b"\xff", ": it is not UTF-8 text"),
        (b"[sampler]\nsteps = 1\nsteps = 2", " is not valid TOML"),
    ],
)
def test_what_is_no_toml_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=rf"recipe\.toml{message}"):
        load_recipe(path, {})


def test_a_recipe_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(RecipeError, match=rf"cannot read {path}: .*--recipe"):
            load_recipe(path, {})


def test_a_models_own_file_names_no_paths_and_nothing_of_the_run(tmp_path: Path) -> None:
    """It is data of somebody else: what it may not set is named and left out, even where it makes no sense."""
    (tmp_path / "dq.toml").write_text(
        "run = 3\n[model]\nlora = '/evil'\nscheduler = '/evil'\n"
        "[conditioning]\nfile = '/evil'\nprompts = '/evil'\nnull_label = 4\n"
        "[sampler]\nsteps = 7\n[quantize]\nweight_bits = 4\n[calibrate]\nsamples = 8\n"
        "[reference]\nseeds = 2\n[export]\ntarget = 'x'\n"
    )
    said: list[str] = []
    found = load_recipe(None, {"model": {"path": tmp_path}}, said.append)
    assert found.model_copy(update={"model": Recipe().model}) == Recipe.model_validate(
        {
            "conditioning": {"null_label": 4},
            "sampler": {"steps": 7},
            "quantize": {"weight_bits": 4},
            "calibrate": {"samples": 8},
        }
    )
    assert found.model.lora is None
    assert len(said) == 1
    for name in ("[run]", "[model]", "[conditioning] file", "[conditioning] prompts", "[reference]", "[export]"):
        assert name in said[0]
    assert said[0].startswith(f"{tmp_path / 'dq.toml'}: ")


def test_a_relative_path_stays_one_and_flags_are_called_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe(None, {"model": {"path": "./owner/name"}}).model.path == tmp_path / "owner" / "name"
    assert load_recipe(None, {"model": {"path": "owner/name"}}).model.path == Path("owner/name")
    with pytest.raises(RecipeError, match=r"^--model: got 3"):
        load_recipe(None, {"model": {"path": 3}})
