"""Ways to spoil a copy of good input: each returns the function that does it and gives the command line to try."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = Path("model") / "unet" / "diffusion_pytorch_model.safetensors"
QUICK = [
    "--steps",
    "4",
    "--step-groups",
    "2",
    "--samples",
    "4",
    "--warmup",
    "0",
    "--iterations",
    "0",
    "--device",
    "cpu",
]
"""A calibration of a second, once nothing is wrong."""

Prepare = Callable[[Path], list[str]]
"""Spoils something in the folder and returns the command line."""
REPORT = "dq-out/executorch/report/report.json"
LATENTS = "dq-out/executorch/report/report.safetensors"


def calibrate(*arguments: str) -> list[str]:
    """A command line that only the mistake can stop."""
    return ["calibrate", "--model", "model", *QUICK, *arguments]


def flags(*arguments: str) -> Prepare:
    return lambda box: calibrate(*arguments)


def command(*arguments: str) -> Prepare:
    return lambda box: list(arguments)


def with_json(name: str, change: Callable[[dict[str, Any]], object], *arguments: str) -> Prepare:
    def prepare(box: Path) -> list[str]:
        data = json.loads((box / name).read_text())
        change(data)
        (box / name).write_text(json.dumps(data))
        return list(arguments) or calibrate()

    return prepare


def with_bytes(name: str, change: Callable[[bytes], bytes] | None, *arguments: str) -> Prepare:
    def prepare(box: Path) -> list[str]:
        data = (box / name).read_bytes()
        (box / name).unlink()
        if change is not None:
            (box / name).write_bytes(change(data))
        return list(arguments) or calibrate()

    return prepare


def with_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Prepare:
    def prepare(box: Path) -> list[str]:
        state = load_file(box / WEIGHTS)
        change(state)
        save_file(state, box / WEIGHTS)
        return calibrate()

    return prepare


def with_pickle(box: Path) -> list[str]:
    (box / WEIGHTS).unlink()
    (box / WEIGHTS).with_suffix(".bin").write_bytes(pickle.dumps(Exploit(box / "unpickled")))
    return calibrate()


def with_disguised_pickle(box: Path) -> list[str]:
    (box / WEIGHTS).write_bytes(pickle.dumps(Exploit(box / "unpickled")))
    return calibrate()


def with_recipe(text: str | bytes) -> Prepare:
    def prepare(box: Path) -> list[str]:
        (box / "bad.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return calibrate("--recipe", "bad.toml")

    return prepare


def with_conditioning(tensors: dict[str, torch.Tensor], *arguments: str, model: str = "text-model") -> Prepare:
    def prepare(box: Path) -> list[str]:
        save_file(tensors, box / "text.safetensors")
        return calibrate("--model", model, "--conditioning", "text.safetensors", *arguments)

    return prepare


def without(name: str, *arguments: str) -> Prepare:
    return with_bytes(name, None, *arguments)


def without_null_label(box: Path) -> list[str]:
    (box / "model" / "dq.toml").unlink()
    return calibrate("--guidance", "2")


def without_folder(name: str, *arguments: str) -> Prepare:
    def prepare(box: Path) -> list[str]:
        shutil.rmtree(box / name)
        return list(arguments)

    return prepare


def file_in_the_way(*arguments: str) -> Prepare:
    def prepare(box: Path) -> list[str]:
        (box / "file").write_text("not a folder")
        return list(arguments)

    return prepare


def empty_folder(box: Path) -> list[str]:
    (box / "empty").mkdir()
    return ["inspect", "empty"]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


class Exploit:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "unpickled")
