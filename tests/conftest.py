"""How the tests are shared out between the processes of pytest-xdist.

A group stays in one process, so that what its files share is made once; the groups that take longest go first, so that
both processes end together. A file is a group of its own unless its folder is named here.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
TOGETHER = (
    "tests/backends/executorch",
    "tests/backends/coreml",
    "tests/backends/coreai",
    "tests/backends/tensorrt",
    "tests/backends/qnn",
    "tests/runtime_samples",
    "tests/test_pipelines.py",
    "tests/calibrate/methods",
    "tests/calibrate/blocks",
    "tests/calibrate/bits",
    "tests/toolchain/verdict",
)
"""Folders whose files share artifacts, bundles or programs, and files, those that take longest first."""


GPU = os.environ.get("DQ_TEST_DEVICE", "cuda")
"""Where tests marked ``gpu`` run; ``cpu`` runs them without a GPU, which shows that they can be run, and nothing of a GPU."""


def group_of(file: str) -> str:
    """The group of a file, named by its path from the root of the project."""
    return next((name for name in TOGETHER if file == name or file.startswith(f"{name}/")), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {group: place for place, group in enumerate(TOGETHER)}
    items.sort(key=lambda item: places.get(group_of(item.path.relative_to(ROOT).as_posix()), len(places)))
    marked = [item for item in items if item.get_closest_marker("gpu") is not None]
    if marked and not _has_gpu():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="torch sees no GPU"))


def _has_gpu() -> bool:
    import torch

    return GPU == "cpu" or torch.cuda.is_available()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Groups by our names: pytest-xdist 3.8 puts them into node ids, where pytest 9.2 no longer reads them."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.partition("::")[0])

    return Groups(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """``--collect-only`` of the slow suite: what it proves, and by how many tests. Names of tests are sentences."""
    if not config.option.collectonly or config.option.markexpr != "slow":
        return []
    proofs = Counter((item.path.relative_to(ROOT).as_posix(), item.name.partition("[")[0]) for item in items)
    return [f"{file}: {name.removeprefix('test_').replace('_', ' ')} ({n})" for (file, name), n in proofs.items()]
