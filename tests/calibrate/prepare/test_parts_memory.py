"""What the end of a calibration needs is said before its start, and refused where it does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.parts.memory import parts_memory
from dq_toolchain.calibrate.prepare import parts_memory as module
from dq_toolchain.calibrate.prepare import setup as set_up
from dq_toolchain.calibrate.prepare.memory import SCATTERED
from dq_toolchain.calibrate.prepare.parts_memory import check_parts_memory
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.disk.spill import Spill
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Recipe
from tests import tiny_pipelines


class Heard(Reporter):
    """What was said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.save_sd(tmp_path_factory.mktemp("pipeline") / "model")


def case(pipeline: Path, tmp_path: Path) -> tuple[Context, Recipe]:
    (tmp_path / "prompts.txt").write_text("a red fox\n")
    recipe = load_recipe(
        None,
        {
            "model": {"path": pipeline},
            "sampler": {"steps": 2},
            "conditioning": {"prompts": tmp_path / "prompts.txt"},
            "calibrate": {"samples": 2},
            "reference": {"seeds": 2},
            "run": {"out": tmp_path},
        },
    )
    return setup(recipe), recipe


def test_it_is_said_of_a_large_network_only(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    check_parts_memory(*case(pipeline, tmp_path), heard, stays=False)
    assert heard.lines == []
    monkeypatch.setattr(set_up, "SMALL_NETWORK", 0)
    check_parts_memory(*case(pipeline, tmp_path), heard, stays=False)
    (line,) = heard.lines
    assert line.startswith("text encoders and decoder need about 0.0 GiB of memory at the end")


def test_what_does_not_fit_is_refused(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that is released then leaves room for the parts, less that of its weights in pages of files, which have it
    already; integers that are on disk need none."""
    context, recipe = case(pipeline, tmp_path)
    need = parts_memory(context.model, recipe, (4, 8, 8))
    assert need is not None
    weights = sum(each.numel() for each in context.network.parameters())
    split = sum(each.numel() for name, each in context.network.named_parameters() if name not in context.model.in_pages)
    least, lean = (int(SCATTERED * (there + 4 * 3 * 2 * 4 * 8 * 8 * 4 + need.peak)) for there in (weights, 0))
    in_memory = replace(context, model=replace(context.model, in_pages={}))
    spilled = replace(context, spill=Spill(tmp_path))
    for where, free, stays, fits in (
        (in_memory, least, True, True),
        (in_memory, least - 1, True, False),
        (in_memory, least - 4 * weights, False, True),
        (in_memory, least - 4 * weights - 1, False, False),
        (context, least - 4 * split, False, True),
        (context, least - 4 * split - 1, False, False),
        (spilled, lean, True, True),
        (spilled, lean - 1, True, False),
    ):
        monkeypatch.setattr(module, "free_on", lambda _device, free=free: free)
        if fits:
            check_parts_memory(where, recipe, Heard(), stays=stays)
            continue
        with pytest.raises(CalibrationError, match=r"are free then; give .*--model with the network's own folder"):
            check_parts_memory(where, recipe, Heard(), stays=stays)


def test_a_network_alone_is_not_checked(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, recipe = case(pipeline, tmp_path)
    monkeypatch.setattr(module, "free_on", lambda _device: 0)
    alone = replace(context, model=replace(context.model, folder=tmp_path))
    check_parts_memory(alone, recipe, Heard(), stays=False)
