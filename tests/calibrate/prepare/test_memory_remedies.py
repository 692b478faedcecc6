"""What a calibration that does not fit is offered is what the calibration then takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dq_toolchain.calibrate.data import context as data_context
from dq_toolchain.calibrate.methods import effective, resolve
from dq_toolchain.calibrate.prepare import memory
from dq_toolchain.calibrate.prepare import setup as module
from dq_toolchain.calibrate.prepare.memory import check_memory, estimate, gib, held
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.recipe.loading import load_recipe
from tests.calibrate.conftest import QUIET

ACCUQUANT = resolve("accuquant")


@pytest.mark.parametrize(
    ("quantize", "calibrate", "offered"),
    [
        ({"weight_bits": 8}, {"warmup": 4}, "--offload"),
        ({"weight_bits": 4}, {}, "--offload"),
        ({"weight_bits": 4}, {"rounding": "learned"}, "--offload"),
        ({"weight_bits": 4}, {"rounding": "closed-form+learned"}, None),
        ({"weight_bits": 4, "step_vectors": True}, {"gradient": "full"}, "--offload --gradient adjoint"),
    ],
)
def test_what_is_offered_is_what_is_taken(
    quantize: dict[str, object],
    calibrate: dict[str, object],
    offered: str | None,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where nobody sets rounding, what learns it in memory does not stay with --offload."""
    monkeypatch.setattr(module, "SMALL_NETWORK", 0)
    monkeypatch.setattr(data_context, "ACTIVATION_LIMIT", 1)  # rollouts then need less than the fit
    sections: dict[str, dict[str, object]] = {
        "model": {"path": tiny_model},
        "run": {"out": tmp_path, "device": "cpu"},
        "sampler": {"steps": 4},
        "quantize": dict(quantize),
        "calibrate": dict(calibrate),
    }

    recipe = effective(load_recipe(None, sections))
    context = setup(recipe)
    need = estimate(context, recipe, ACCUQUANT, in_parts=True).on(context.device)
    monkeypatch.setattr(memory, "free_on", lambda _device: need - 1 - held(context, recipe))
    if offered is None:
        with pytest.raises(CalibrationError, match=r"are free; lower \[calibrate\] samples"):
            check_memory(context, recipe, ACCUQUANT, QUIET)
        return
    sections["run"]["offload"] = "--offload" in offered
    sections["calibrate"] |= {"gradient": "adjoint"} if "--gradient" in offered else {}
    taken = effective(load_recipe(None, sections))
    size = gib(estimate(context, taken, ACCUQUANT, in_parts=True).on(context.device))
    with pytest.raises(CalibrationError, match=f"add {offered}, which needs about {size}$"):
        check_memory(context, recipe, ACCUQUANT, QUIET)
