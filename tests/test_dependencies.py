"""What is asked for, what was tested, and what is installed agree; known advisories are below the lower bounds."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
FIXED = {
    "jinja2": "3.1.6",  # CVE-2025-27516
    "pillow": "12.2",  # CVE-2024-28219, CVE-2025-48379, CVE-2026-25990, CVE-2026-40192
    "pydantic": "2.4",  # CVE-2024-3772
    "psutil": "5.6.6",  # CVE-2019-18874
    "pytest": "9.0.3",  # CVE-2025-71176
    "setuptools": "78.1.1",  # CVE-2025-47273
    "torch": "2.8",  # CVE-2025-32434, CVE-2025-3730
    "transformers": "5",  # CVE-2025-6921, CVE-2026-1839 and those before
}
"""Name -> the first release without the advisories known when this was written."""


def requirements() -> list[Requirement]:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = data["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    found = [Requirement(line) for line in (*project["dependencies"], *extras, *data["build-system"]["requires"])]
    return [each for each in found if each.name != project["name"]]


def constraints() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pinned = {canonicalize_name(each.name): next(iter(each.specifier)) for each in found}
    assert len(pinned) == len(found)
    assert {specifier.operator for specifier in pinned.values()} == {"=="}
    return {name: Version(specifier.version) for name, specifier in pinned.items()}


def test_every_requirement_is_named_once_and_met_by_the_constraints() -> None:
    pinned = constraints()
    for each in requirements():
        assert each.specifier.contains(pinned[canonicalize_name(each.name)]), each
    assert max(Counter(each.name for each in requirements()).values()) == 1


def test_constraints_hold_on_every_machine() -> None:
    assert [version for version in constraints().values() if version.local is not None] == []


@pytest.mark.parametrize("name", FIXED)
def test_releases_with_known_advisories_are_not_allowed(name: str) -> None:
    specifier = next(each.specifier for each in requirements() if canonicalize_name(each.name) == name)
    fixed = Version(FIXED[name])
    lowest = min(Version(each.version.removesuffix(".*")) for each in specifier if each.operator in (">=", "==", "~="))
    assert lowest >= fixed


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    package = re.search(r'^__version__ = "(.+)"$', (ROOT / "src/dq_toolchain/__init__.py").read_text(), re.MULTILINE)
    citation = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert package is not None
    assert citation is not None
    assert package[1] == citation[1]
    assert "version" in project["dynamic"]  # setuptools reads it from the package
