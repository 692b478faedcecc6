"""The documents name what exists: links, files, rooms, commands of the gate; prose is wrapped."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from scripts.house import HALLS

from dq_toolchain.toolchain.recipe.effort import TABLE

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md")]
    + [page for name in ("docs", "runtime_samples", "models", ".github") for page in (ROOT / name).rglob("*.md")]
)
GENERATED = ("RECIPE.md",)
"""Written by a script, as it writes them."""
WRAPPED = [page for page in PAGES if page.parent in (ROOT, ROOT / "docs") and page.name not in GENERATED]
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
OUR_FILE = re.compile(r"`((?:toolchain|calibrate|backends|runtime_samples|tests|scripts|benchmarks|docs)/[\w./-]+)`")
MODULE = re.compile(r"python -m ((?:benchmarks|scripts)[\w.]+)")
WIDTH = 100


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> list[str]:
    found = []
    for link in LINK.findall(FENCED.sub("", page.read_text())):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


def missing_files(page: Path) -> list[str]:
    """Files and modules that a page names and that are not there; a part in capitals (TARGET) stands for a name."""
    text = page.read_text()
    named = [path for path in OUR_FILE.findall(text) if not any(part.isupper() for part in Path(path).parts)]
    files = [path for path in named if not (ROOT / path).exists()]
    modules = [ROOT.joinpath(*module.split(".")) for module in MODULE.findall(text)]
    return files + [str(path) for path in modules if not path.with_suffix(".py").exists() and not path.is_dir()]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_files_exist(page: Path) -> None:
    assert dead_links(page) == []
    assert page.name == "CHANGELOG.md" or missing_files(page) == []  # which also names what was there once


def test_a_dead_link_and_a_missing_file_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One two\n[a](#one-two) [b](#three) [c](other.md)\n`toolchain/nowhere.py` python -m scripts.none\n"
    )
    assert dead_links(page) == ["#three", "other.md"]
    assert missing_files(page) == ["toolchain/nowhere.py", str(ROOT / "scripts" / "none")]


@pytest.mark.parametrize("page", WRAPPED, ids=name_of)
def test_prose_is_wrapped(page: Path) -> None:
    prose = FENCED.sub("", page.read_text()).splitlines()
    long = [
        line for line in prose if len(line) > WIDTH and not line.lstrip().startswith(("|", "![")) and line[:4].strip()
    ]
    assert long == []


def floors_in_the_contract(name: str) -> list[list[str]]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each.get("containers") == [f"dq_toolchain.{name}"])
    return [sorted(re.split(r"[ |:]+", layer)) for layer in layers]


def floors_in_the_page(name: str) -> list[list[str]]:
    section = (ROOT / "docs" / "ARCHITECTURE.md").read_text().partition(f"\n**{name}**\n\n")[2]
    rows = [line.split("|")[1:3] for line in section.partition("\n\n")[0].splitlines()[2:]]
    assert [int(floor) for floor, _ in rows] == list(range(len(rows), 0, -1))
    return [sorted(re.findall(r"`(\w+)`", rooms)) for _, rooms in rows]


@pytest.mark.parametrize("name", HALLS)
def test_architecture_has_the_floors_of_the_contract(name: str) -> None:
    """The tables "Rooms and floors" of docs/ARCHITECTURE.md are the layers of pyproject.toml."""
    assert floors_in_the_page(name) == floors_in_the_contract(name)


def test_the_method_page_has_the_efforts_of_the_code() -> None:
    section = (ROOT / "docs" / "METHOD.md").read_text().partition("\n## Effort and bits\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:3] == "| `"]
    table = {name.strip("`"): values for name, *values in rows}
    budgets = [row.sections()["calibrate"] for width in TABLE.values() for row in width.values()]
    assert set(table) == set(budgets[0])
    for name, values in table.items():
        expected = [budget[name] for budget in budgets]
        assert [value if isinstance(expected[0], str) else float(value) for value in values] == expected


@pytest.mark.parametrize("heading", ["## Try it", "## Test it"])
def test_the_gate_finds_its_commands(heading: str) -> None:
    """.ci/run executes the first indented line under each of these headings."""
    lines = (ROOT / "README.md").read_text().splitlines()
    command = next(line for line in lines[lines.index(heading) :] if line.startswith("    "))
    assert command.startswith("    . ./setup.sh")


def test_no_page_is_left_out_of_the_site() -> None:
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f" {page}\n" not in nav + "\n"] == []
