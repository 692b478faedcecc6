"""A checkpoint is of one identity and one list of names; a folder of checkpoints loses only what was written there."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dq_toolchain.calibrate.work import checkpoint
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile, mark, remove
from dq_toolchain.toolchain.disk.files import write_tensors

IDENTITY = "0123456789abcdef" * 4
NAMES = ("a:input", "b:input")
TENSORS = {"scale": torch.arange(6.0).view(3, 2)}


def saved(folder: Path) -> CheckpointFile:
    file = CheckpointFile.of(folder, "ranges", IDENTITY, names=NAMES)
    file.save(TENSORS, {"seconds": 1.5})
    return file


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    saved(tmp_path)
    found = CheckpointFile.of(tmp_path, "ranges", IDENTITY, names=NAMES).load()
    assert found is not None
    assert torch.equal(found[0]["scale"], TENSORS["scale"])
    assert found[1] == {"seconds": 1.5}


@pytest.mark.parametrize("names", [("b:input", "a:input"), ("a:input",), ("a:input", "c:input"), ()])
def test_other_names_start_afresh_even_under_the_same_identity(names: tuple[str, ...], tmp_path: Path) -> None:
    file = saved(tmp_path)
    assert CheckpointFile(file.path, IDENTITY, names=names).load() is None
    assert CheckpointFile(file.path, IDENTITY, names=names).part(3).load() is None


def test_another_identity_in_the_same_file_starts_afresh(tmp_path: Path) -> None:
    file = saved(tmp_path)
    assert CheckpointFile(file.path, IDENTITY[:-1] + "0", names=NAMES).load() is None


@pytest.mark.parametrize("damage", ["cut", "empty", "no metadata", "no names", "deep state", "state is a list", "fifo"])
def test_a_damaged_checkpoint_starts_afresh(damage: str, tmp_path: Path) -> None:
    file = saved(tmp_path)
    metadata = {"identity": IDENTITY, "names": json.dumps(NAMES), "state": "{}"}
    if damage in ("cut", "empty"):
        file.path.write_bytes(file.path.read_bytes()[: -1 if damage == "cut" else 0])
    elif damage == "fifo":
        import os

        file.path.unlink()
        os.mkfifo(file.path)
    else:
        change = {"no metadata": None, "no names": {"names": "["}, "deep state": {"state": "[" * 100_000}}
        made = change.get(damage, {"state": "[1]"})
        write_tensors(file.path, TENSORS, None if made is None else metadata | made)
    assert file.load() is None


def test_only_one_of_several_processes_writes(tmp_path: Path) -> None:
    file = CheckpointFile.of(tmp_path, "fit", IDENTITY, writes=False)
    file.save(TENSORS, {})
    file.part(1).save(TENSORS, {})
    assert list(tmp_path.iterdir()) == []


def test_removal_takes_what_is_ours_and_then_the_folder(tmp_path: Path) -> None:
    work = tmp_path / "work"
    mark(work)
    for number in range(2):
        CheckpointFile.of(work, "blocks-fit", IDENTITY).part(number).save(TENSORS, {})
    saved(work)
    (work / f".fit-{IDENTITY[:16]}.safetensors.{2**22 + 1}.tmp").write_bytes(b"left by a killed process")
    remove(work)
    assert not work.exists()
    remove(work)  # nothing there


def test_removal_leaves_what_others_put_there(tmp_path: Path) -> None:
    work = tmp_path / "work"
    file = saved(work)
    elsewhere = saved(tmp_path / "elsewhere").path
    theirs = {
        "README.txt": b"notes of someone else",
        "thesis.doc": b"x",
        file.path.name.replace("ranges", "weights"): b"a name like ours, not our content",
    }
    for name, data in theirs.items():
        (work / name).write_bytes(data)
    (work / f"fit-{IDENTITY[:16]}.safetensors").symlink_to(elsewhere)
    (work / f"rollouts-{IDENTITY[:16]}.safetensors").mkdir()
    remove(work)
    assert not file.path.exists()
    assert elsewhere.exists()
    assert {name: (work / name).read_bytes() for name in theirs} == theirs
    assert len(list(work.iterdir())) == len(theirs) + 2


def test_a_save_that_takes_long_is_made_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    file = CheckpointFile(tmp_path / f"fit-{'0' * 16}.safetensors", "0")

    def due_after(seconds: float) -> bool:
        clock[0] += seconds
        found = file.due
        clock[0] -= seconds
        return found

    assert [due_after(59), due_after(60)] == [False, True]
    for cost, wait in ((1.0, 60.0), (30.0, 600.0), (2.0, 60.0)):

        def write(*_arguments: object, cost: float = cost) -> None:
            clock[0] += cost

        monkeypatch.setattr(checkpoint, "write_tensors", write)
        file.save({}, {})
        assert [due_after(wait - 1), due_after(wait)] == [False, True]
