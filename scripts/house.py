"""The house in figures: rooms, floors, arrows and circles of the three halls, from their imports.

    python -m scripts.house            # the table
    python -m scripts.house --rooms    # and every room with what it stands on

A room is a folder, or a file that lies directly in a hall. An arrow goes from a room to another that it imports. A room's
floor is one above the highest that it stands on. A circle is a set of rooms that stand on each other.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "dq_toolchain"
HALLS = ("toolchain", "calibrate", "backends")


@dataclass(frozen=True)
class Hall:
    """One hall: room -> the rooms that it imports (itself left out)."""

    name: str
    arrows: Mapping[str, frozenset[str]]

    @property
    def circles(self) -> list[frozenset[str]]:
        """Sets of two or more rooms that reach each other."""
        reach = {room: self._reach(room) for room in self.arrows}
        found = {frozenset(other for other in reach[room] if room in reach[other]) | {room} for room in self.arrows}
        return sorted((circle for circle in found if len(circle) > 1), key=sorted)

    @property
    def floor_of(self) -> dict[str, int]:
        """Room -> its floor, 1 at the bottom; rooms of one circle share theirs."""
        circle_of = {room: circle for circle in self.circles for room in circle}
        floors: dict[str, int] = {}

        def floor(room: str) -> int:
            if room not in floors:
                members = circle_of.get(room, frozenset((room,)))
                below = {other for member in members for other in self.arrows[member]} - members
                value = 1 + max(map(floor, below), default=0)
                floors.update(dict.fromkeys(members, value))
            return floors[room]

        for room in self.arrows:
            floor(room)
        return floors

    def _reach(self, room: str) -> set[str]:
        seen, open_rooms = set[str](), [room]
        while open_rooms:
            for other in self.arrows[open_rooms.pop()] - seen:
                seen.add(other)
                open_rooms.append(other)
        return seen

    @property
    def figures(self) -> dict[str, int]:
        return {
            "rooms": len(self.arrows),
            "floors": max(self.floor_of.values(), default=0),
            "arrows": sum(map(len, self.arrows.values())),
            "circles": len(self.circles),
        }


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a module imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def hall(folder: Path) -> Hall:
    """The rooms of one top folder of the package."""
    files = [path for path in sorted(folder.rglob("*.py")) if path.parent != folder or path.name != "__init__.py"]
    names = {_room(path.relative_to(folder).parts) for path in files}
    arrows: dict[str, set[str]] = {name: set() for name in names}
    for path in files:
        room = _room(path.relative_to(folder).parts)
        arrows[room] |= set(_stands_on(imported(ast.parse(path.read_text(encoding="utf-8"))), folder.name, names)) - {
            room
        }
    return Hall(folder.name, {room: frozenset(others) for room, others in arrows.items()})


def _room(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py")


def _stands_on(modules: Iterable[str], name: str, rooms: set[str]) -> Iterator[str]:
    for module in modules:
        parts = module.split(".")
        if parts[:2] == [PACKAGE, name] and len(parts) > 2 and parts[2] in rooms:
            yield parts[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", action="store_true", help="every room with its floor and what it stands on")
    options = parser.parse_args()
    print(f"{'hall':10s} rooms floors arrows circles")
    for name in HALLS:
        found = hall(ROOT / name)
        figures = found.figures
        print(f"{name:10s} {figures['rooms']:5d} {figures['floors']:6d} {figures['arrows']:6d} {figures['circles']:7d}")
        for circle in found.circles:
            print(f"  circle: {', '.join(sorted(circle))}")
        if options.rooms:
            for room, floor in sorted(found.floor_of.items(), key=lambda item: (-item[1], item[0])):
                print(f"  {floor:2d} {room}: {', '.join(sorted(found.arrows[room])) or '-'}")


if __name__ == "__main__":
    main()
