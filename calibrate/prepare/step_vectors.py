"""What does not go together with step vectors."""

from __future__ import annotations

from dq_toolchain.calibrate.methods.base import Method
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.recipe.sections import Recipe


def check_step_vectors(recipe: Recipe, method: Method | None) -> None:
    """Raises RecipeError: the recipe asks for step vectors, and for what cannot be done with them."""
    if not recipe.quantize.step_vectors:
        return
    if method is not None and method.needs_timestep:
        raise RecipeError(
            f"[quantize] step_vectors: method {method.name!r} {method.needs_timestep}, which a network with step vectors has not; "
            "leave step_vectors out, or take another method"
        )
    if recipe.run.offload and recipe.calibrate.gradient == "full":
        raise RecipeError(
            '[quantize] step_vectors: with --offload, gradient = "full" runs blocks again after later steps; leave step_vectors '
            'out, or set gradient = "adjoint"'
        )
