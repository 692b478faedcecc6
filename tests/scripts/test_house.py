"""The house does not grow back: rooms, floors and arrows stay few, and nothing stands on what stands on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts.house import HALLS, ROOT, hall

MOST = {
    "toolchain": {"rooms": 16, "floors": 11, "arrows": 61, "circles": 0},
    "calibrate": {"rooms": 15, "floors": 10, "arrows": 58, "circles": 0},
    "backends": {"rooms": 8, "floors": 3, "arrows": 12, "circles": 0},
}


@pytest.mark.parametrize("name", HALLS)
def test_the_halls_stay_as_they_are(name: str) -> None:
    figures = hall(ROOT / name).figures
    assert {key: value for key, value in figures.items() if value > MOST[name][key]} == {}


def test_floors_arrows_and_circles_are_counted(tmp_path: Path) -> None:
    house = tmp_path / "toolchain"
    for path, text in {
        "cellar.py": "",
        "stairs/up.py": "from dq_toolchain.toolchain.cellar import wine",
        "stairs/down.py": "def late():\n    from dq_toolchain.toolchain import attic",
        "attic.py": "import dq_toolchain.toolchain.stairs.up",
        "roof.py": "from dq_toolchain.toolchain import attic, cellar",
    }.items():
        (house / path).parent.mkdir(parents=True, exist_ok=True)
        (house / path).write_text(text)
    found = hall(house)
    assert found.figures == {"rooms": 4, "floors": 3, "arrows": 5, "circles": 1}
    assert found.circles == [frozenset({"attic", "stairs"})]
    assert found.floor_of == {"cellar": 1, "attic": 2, "stairs": 2, "roof": 3}
