"""What a command looks at before it imports what computes: a mistake in paths or names is told at once."""

from __future__ import annotations

from dq_toolchain.toolchain.cli.names import method_names
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.recipe.sections import Recipe


def check_method(recipe: Recipe) -> None:
    """Raise RecipeError for an unknown method."""
    known = method_names()
    for part in (part.strip() for part in recipe.calibrate.method.split("+")):
        if part not in known:
            raise RecipeError(
                f"--method: got {part!r}, allowed are {', '.join(known)}, or several joined by '+'; choose one"
            )


def check_recipe(recipe: Recipe) -> None:
    """Raise ToolchainError for an unknown method, a file that is not there, or a model's folder that is refused by its configs.

    A model on the hub is not asked for: that takes longer than any import.
    """
    from dq_toolchain.toolchain.models.hub import is_hub_id
    from dq_toolchain.toolchain.models.source import find_model

    check_method(recipe)
    model, files = recipe.model, recipe.conditioning
    for flag, path, kind in (
        ("--lora", model.lora, "a safetensors file of adapters"),
        ("--conditioning", files.file, "a safetensors file"),
        ("--prompts", files.prompts, "a text file, one prompt per line"),
    ):
        if path is not None and not path.exists():
            raise RecipeError(f"cannot read {path}: no such file; {flag} takes {kind}")
    if model.path is not None and (model.path.exists() or model.path.is_absolute() or not is_hub_id(str(model.path))):
        find_model(model.path, model.variant, model.scheduler)
