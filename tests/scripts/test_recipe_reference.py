"""docs/RECIPE.md is what the code says."""

from __future__ import annotations

from scripts.recipe_reference import FILE, reference

from dq_toolchain import backends
from dq_toolchain.toolchain.recipe.fields import all_settings
from dq_toolchain.toolchain.recipe.sections import with_targets


def test_the_committed_page_is_what_the_generator_writes() -> None:
    assert FILE.read_text(encoding="utf-8") == reference(), "run `python -m scripts.recipe_reference`"


def test_every_setting_is_in_it_with_a_meaning() -> None:
    page = reference()
    for setting in all_settings(with_targets(backends.sections())):
        assert setting.description, f"[{setting.section}] {setting.key} has no description"
        assert f"| `{setting.key}` |" in page.partition(f"## [{setting.section}]")[2]
