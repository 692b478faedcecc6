"""``recipe``: the settings that a command line comes to, as a recipe file."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from dq_toolchain import backends
from dq_toolchain.toolchain.cli.app import ImageToImage, Target, UnetOnly, app
from dq_toolchain.toolchain.cli.before import check_method
from dq_toolchain.toolchain.cli.calibration import PLACES, calibrate, calibration_recipe
from dq_toolchain.toolchain.cli.options import target_options, with_options
from dq_toolchain.toolchain.recipe import effort
from dq_toolchain.toolchain.recipe.fields import Setting, all_settings
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.recipe.writing import to_toml

OPTIONS = {parameter.name: parameter for parameter in target_options(backends.sections())}
BOTH = {
    setting.key: setting
    for setting in all_settings(Recipe)
    if setting.key in OPTIONS and PLACES.get(setting.key) == (setting.section, setting.key)
}
"""Options that calibrate and export both have, with values of other kinds: numbers, or words of its own, for calibrate."""


def recipe(
    target: Target = None, unet_only: UnetOnly = None, image_to_image: ImageToImage = None, **given: Any
) -> None:
    """Print the recipe that flags of calibrate and export come to: every setting with its value and what it means.

    What it prints is a recipe file, for --recipe of those commands.
    """
    options = {name: given.get(name) for name in inspect.signature(calibrate).parameters}
    of_target = {name: given[name] for name in OPTIONS if name not in BOTH}
    for name, own in BOTH.items():
        values = list(reversed(given[name] or []))
        options[name] = next((own.kind(value) for value in values if _is_of(own, value)), None)
        of_target[name] = next((value for value in values if not _is_of(own, value)), None)
    options["target"] = target
    of_export = {"export": {"unet_only": unet_only, "image_to_image": image_to_image}}
    asked = calibration_recipe(options, of_export, target_flags=of_target, default_target=backends.DEFAULT)
    named, _ = backends.suited(calibration_recipe(options, of_export, target_flags=of_target))
    check_method(asked)
    print(to_toml(_effective(asked.model_copy(update={"quantize": named.quantize}))), end="")


def _is_of(own: Setting, value: str) -> bool:
    """Whether the value of an option that both have is meant for calibrate."""
    return value in own.choices if own.choices else value.isdecimal()


def _effective(asked: Recipe) -> Recipe:
    """With what method, effort and bits decide. The default method decides nothing, so that torch is not waited for."""
    if asked.calibrate.method == Recipe().calibrate.method:
        return effort.effective(asked)
    from dq_toolchain.calibrate.methods import effective

    return effective(asked)


def _added() -> list[inspect.Parameter]:
    """The options of calibrate and export; one that both have may be given twice."""
    own = inspect.signature(calibrate, eval_str=True).parameters.values()
    found = [each for each in own if each.name not in {*BOTH, "json_", "target"}]
    found += [each for each in OPTIONS.values() if each.name not in BOTH]
    for name in sorted(BOTH):
        texts = [each.annotation.__metadata__[0].help for each in (*own, OPTIONS[name]) if each.name == name]
        kind = " | ".join(BOTH[name].choices) or "a number"
        told = f"{kind}, of calibrate: {texts[0]}; another word, of export: {texts[1]}"
        annotation = Annotated[list[str] | None, typer.Option(f"--{name.replace('_', '-')}", help=told)]
        found.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    return found


app.command(
    "recipe",
    epilog="Examples:  dq-toolchain recipe | "
    "dq-toolchain recipe --weight-bits 4 > dq.toml && dq-toolchain calibrate --recipe dq.toml",
)(with_options(recipe, _added()))
