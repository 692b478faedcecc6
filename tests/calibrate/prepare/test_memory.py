"""The estimate grows with what is held, and what does not fit is refused before anything starts, with what would fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dq_toolchain.calibrate.data import context as data_context
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.fitting.phase import phases_of
from dq_toolchain.calibrate.methods import resolve
from dq_toolchain.calibrate.network.activation_checkpointing import outermost_blocks
from dq_toolchain.calibrate.network.streaming import streamed_tensors
from dq_toolchain.calibrate.prepare import memory
from dq_toolchain.calibrate.prepare import setup as module
from dq_toolchain.calibrate.prepare.memory import LIBRARIES, check_memory, estimate, gib, held
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.work.workers import Workers
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.recipe.sections import Recipe
from tests.calibrate.conftest import tiny_recipe
from tests.calibrate.network import counting

QUIET, ACCUQUANT = Reporter(quiet=True), resolve("accuquant")
GPU, HOST = torch.device("cuda", 0), torch.device("cpu")


@pytest.fixture
def case(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Context, Recipe]:
    """A tiny model that counts as a large one."""
    monkeypatch.setattr(module, "SMALL_NETWORK", 0)
    recipe = tiny_recipe(tiny_model, tmp_path, calibrate={"batch": 64})
    return setup(recipe), recipe


def offloaded(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"offload": True})})


def test_a_fit_needs_more_than_ranges_and_offload_needs_less(case: tuple[Context, Recipe]) -> None:
    context, recipe = case
    weights = sum(p.numel() for p in context.prepared.network.parameters())
    in_memory = replace(context, model=replace(context.model, in_pages={}))
    full, ranges = estimate(in_memory, recipe, ACCUQUANT), estimate(in_memory, recipe, resolve("mse"))
    small = estimate(in_memory, offloaded(recipe), ACCUQUANT)
    assert full.weights == 12 * 4 * weights
    packed = int(1.5 * weights)  # the float weights, their integers, and these packed for the simulation
    assert ranges.weights == 4 * packed
    packed = int(1.25 * weights)  # the integers that a product does not need are in a file then
    assert small.weights == 4 * packed
    ranges = estimate(in_memory, offloaded(recipe), resolve("mse"))
    assert ranges.weights <= small.weights < full.weights
    assert ranges.on(HOST) < small.on(HOST) < full.on(HOST)
    assert small.activations < full.activations


def test_weights_in_pages_of_files_are_said_and_not_counted(case: tuple[Context, Recipe]) -> None:
    """Those that the file holds in float32, less those that were split; with ``offload`` all that were read from files."""
    context, recipe = case
    weights = sum(p.numel() for p in context.network.parameters())
    split = sum(p.numel() for n, p in context.network.named_parameters() if n not in context.model.in_pages)
    assert weights > split > 0
    narrow = replace(context, model=replace(context.model, in_pages=dict.fromkeys(context.model.in_pages, False)))
    lean = offloaded(recipe)
    for where, settings, read in ((context, recipe, weights - split), (narrow, recipe, 0),
                                  (context, lean, weights), (narrow, lean, weights)):  # fmt: skip
        in_memory = estimate(replace(where, model=replace(where.model, in_pages={})), settings, ACCUQUANT)
        found = estimate(where, settings, ACCUQUANT)
        assert found.in_pages == 4 * read
        assert found.weights == in_memory.weights - 4 * read
        assert found.activations == in_memory.activations
        assert ("GiB of weights are read from disk" in str(found)) == (read > 0)
    on_gpu = estimate(replace(context, device=GPU), recipe, ACCUQUANT)
    assert on_gpu.in_pages == 0


def test_activations_follow_the_batch(case: tuple[Context, Recipe]) -> None:
    context, recipe = case
    double = recipe.model_copy(
        update={"calibrate": recipe.calibrate.model_copy(update={"batch": 16 * recipe.calibrate.batch})}
    )
    assert estimate(context, double, ACCUQUANT).activations > 10 * estimate(context, recipe, ACCUQUANT).activations


def test_large_activations_are_run_few_at_a_time(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL_NETWORK", 0)
    recipe = tiny_recipe(tiny_model, tmp_path)
    assert setup(recipe).rollout_batch == 32
    monkeypatch.setattr(data_context, "ACTIVATION_LIMIT", 1)
    assert setup(recipe).rollout_batch == 1


def free_without(monkeypatch: pytest.MonkeyPatch, context: Context, recipe: Recipe, size: int) -> None:
    """``size`` bytes for the whole calibration: what the process holds of it already is not among those that are free."""
    monkeypatch.setattr(memory, "free_on", lambda _device: size - held(context, recipe))


def test_weights_that_the_host_holds_already_are_not_asked_for_again(case: tuple[Context, Recipe]) -> None:
    context, recipe = case
    sizes = {name: parameter.numel() for name, parameter in context.network.named_parameters()}
    narrow = replace(context, model=replace(context.model, in_pages=dict.fromkeys(context.model.in_pages, False)))
    assert held(context, recipe) == 4 * sum(sizes[name] for name in sizes if name not in context.model.in_pages)
    assert held(narrow, recipe) == 4 * sum(sizes.values())
    assert held(replace(narrow, device=GPU), recipe) == 0


def test_what_does_not_fit_is_refused_with_what_would(
    case: tuple[Context, Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, recipe = case
    need, small = (
        estimate(context, r, ACCUQUANT, in_parts=True).on(context.device) for r in (recipe, offloaded(recipe))
    )
    for free, settings, message in ((need - 1, recipe, f"add --offload, which needs about {gib(small)}$"),
                                    (small - 1, recipe, r"with --offload; lower \[calibrate\] samples"),
                                    (small - 1, offloaded(recipe), r"are free; lower \[calibrate\] samples")):  # fmt: skip
        free_without(monkeypatch, context, settings, free)
        with pytest.raises(CalibrationError, match=message):
            check_memory(context, settings, ACCUQUANT, QUIET)
    free_without(monkeypatch, context, recipe, need)
    check_memory(context, recipe, ACCUQUANT, QUIET)
    assert need > LIBRARIES


@pytest.fixture
def on_gpu(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Context, Recipe]:
    """The same model in a context that says it is on a GPU; nothing is run there."""
    monkeypatch.setattr(module, "SMALL_NETWORK", 0)
    recipe = tiny_recipe(tiny_model, tmp_path, calibrate={"batch": 64})
    return replace(setup(recipe), device=GPU), recipe


def test_offload_on_a_gpu_moves_weights_to_the_host(on_gpu: tuple[Context, Recipe]) -> None:
    context, recipe = on_gpu
    here = replace(context, device=HOST)
    small, whole = estimate(context, offloaded(recipe), ACCUQUANT), estimate(context, recipe, ACCUQUANT)
    blocks = [sum(t.numel() for t in streamed_tensors(block)) for block in outermost_blocks(context.network)]
    outside = sum(p.numel() for p in context.network.parameters()) - sum(blocks)
    assert small.pinned == int(1.25 * sum(blocks)) * 4
    assert whole.pinned == 0
    assert estimate(here, offloaded(recipe), ACCUQUANT).pinned == 0
    # on the host the phase with the most activations, which has nothing else, needs the most
    assert estimate(here, offloaded(recipe), ACCUQUANT).weights == 4 * int(0.25 * (outside + sum(blocks)))
    sample = memory._of_one_sample(context, True)
    phases = phases_of(ACCUQUANT.fit, offloaded(recipe))
    unit = 4 * sum(phase.needs(context, offloaded(recipe), sample).floats for phase in phases)
    assert unit > 0
    assert abs(small.weights - unit - (1.5 * outside + 5 * max(blocks)) * 4) <= 8
    assert small.on(GPU) < whole.on(GPU)
    assert small.on_host > small.pinned + small.host


def test_the_memory_of_the_host_of_a_gpu_is_checked(
    on_gpu: tuple[Context, Recipe], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    context, recipe = on_gpu
    small = estimate(context, offloaded(recipe), ACCUQUANT)

    def check(gpu: int, host: int, settings: Recipe, reporter: Reporter = QUIET) -> None:
        monkeypatch.setattr(memory, "free_on", lambda device: host if device.type == "cpu" else gpu)
        check_memory(context, settings, ACCUQUANT, reporter)

    check(small.on(GPU), small.on_host, offloaded(recipe), Reporter())
    said = capsys.readouterr()
    assert "of the host's memory" in said.out + said.err
    assert "two blocks, and their fit" in said.out + said.err
    with pytest.raises(CalibrationError, match=r"of the host's memory, .* of it pinned for the weights .* are free; "):
        check(small.on(GPU), small.on_host - 1, offloaded(recipe))
    least = estimate(context, offloaded(recipe), ACCUQUANT, in_parts=True)
    with pytest.raises(
        CalibrationError, match=r"add --offload, which needs about \S+ GiB and \S+ GiB of the host's memory"
    ):
        check(least.on(GPU), least.on_host, recipe)
    with pytest.raises(CalibrationError, match=r"host's memory, \S+ GiB are free; lower \[calibrate\] samples"):
        check(1 << 40, 1, recipe)
    streaming, _ = counting.streaming()
    streaming.attach(context.network)
    there = replace(context, streaming=streaming)
    monkeypatch.setattr(
        memory, "free_on", lambda device: 1 << 40 if device.type != "cpu" else small.on_host - streaming.pinned
    )
    check_memory(there, offloaded(recipe), ACCUQUANT, QUIET)  # what is pinned already needs no room again
    assert streaming.pinned > 0
    streaming.close()


def test_a_small_network_is_not_worth_a_thought(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(tiny_model, tmp_path)
    monkeypatch.setattr(memory, "free_on", lambda _device: 0)
    check_memory(setup(recipe), recipe, ACCUQUANT, QUIET)
    monkeypatch.setattr(module, "SMALL_NETWORK", 0)
    large = setup(recipe)
    with pytest.raises(CalibrationError):
        check_memory(large, recipe, ACCUQUANT, QUIET)


def _with(recipe: Recipe, **settings: object) -> Recipe:
    return recipe.model_copy(update={"calibrate": recipe.calibrate.model_copy(update=settings)})


class Heard(Reporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_an_iteration_that_does_not_fit_runs_in_parts(
    case: tuple[Context, Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, recipe = case
    whole, least = (estimate(context, recipe, ACCUQUANT, in_parts=parts).on(context.device) for parts in (False, True))
    assert least < whole
    found = []
    for free in (whole, whole - 1, (whole + least) // 2, least):
        free_without(monkeypatch, context, recipe, free)
        reporter = Heard()
        found.append(check_memory(context, recipe, ACCUQUANT, reporter).gradient_batch)
        (line,) = reporter.lines
        assert ("iterations run in parts of" in line) == (found[-1] is not None)
    assert found[0] is None
    batches = [batch for batch in found if batch is not None]
    assert len(batches) == 3
    assert recipe.calibrate.batch > batches[0] >= batches[1] >= batches[2] >= 1
    assert batches[1] < batches[0]


def test_full_backpropagation_counts_the_steps_of_a_segment_and_adjoint_does_not(
    case: tuple[Context, Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, recipe = case

    def activations(**settings: object) -> int:
        changed = _with(recipe, warmup=0, group_iterations=0, **settings)
        return estimate(context, changed, ACCUQUANT).activations

    assert activations(gradient="full", horizon=4) == 4 * activations(gradient="full", horizon=1, batch=32)
    assert activations(gradient="adjoint", horizon=4) == activations(gradient="adjoint", horizon=2)
    full = _with(recipe, gradient="full", horizon=4)
    monkeypatch.setattr(data_context, "ACTIVATION_LIMIT", 1)  # rollouts then need less than the fit
    need, small = (
        estimate(context, _with(full, gradient=kind), ACCUQUANT, in_parts=True).on(context.device)
        for kind in ("full", "adjoint")
    )
    free_without(monkeypatch, context, full, need - 1)
    with pytest.raises(CalibrationError, match=f"add --gradient adjoint, which needs about {gib(small)}$"):
        check_memory(context, full, ACCUQUANT, QUIET)


def test_a_gpu_runs_as_many_trajectories_as_its_memory_holds_in_powers_of_two(
    case: tuple[Context, Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, _ = case
    assert context.activation_memory is not None
    one = context.activation_memory.forward
    batches = {samples: replace(context, room=samples * one).rollout_batch for samples in (0, 1, 37, 63, 64, 10_000)}
    assert batches == {0: 1, 1: 1, 37: 32, 63: 32, 64: 64, 10_000: 256}
    assert replace(context, room=10_000 * one).host_batch == context.rollout_batch == 32
    gpu, gib = torch.device("cuda"), 2**30
    found = []
    for free in (79, 60, 20, 0):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device, free=free: (free * gib, 80 * gib))
        found.append(memory.room_on(gpu))
    assert found == [20 * gib, 20 * gib, 19 * gib // 2, 0]
    assert memory.room_on(torch.device("cpu")) is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (79 * gib, 80 * gib))

    class Beside(Workers):
        """One of two; the other's GPU has 3 GiB of room."""

        def largest(self, x: torch.Tensor) -> torch.Tensor:
            return torch.maximum(x, torch.tensor(-3 * gib))

    assert memory.room_on(gpu, Beside(0, 2)) == 3 * gib


def test_a_small_network_on_a_gpu_is_not_a_large_one(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory is known, so that its batches follow the card; passes of large networks are not recorded."""
    recipe = tiny_recipe(tiny_model, tmp_path)
    plain = setup(recipe)
    assert (plain.is_large, plain.activation_memory, plain.rollout_batch) == (False, None, 32)
    monkeypatch.setattr(module, "room_on", lambda _device, _workers: 2**40)
    context = setup(recipe)
    assert context.activation_memory is not None
    assert (context.is_large, context.rollout_batch, context.host_batch) == (False, 256, 32)
