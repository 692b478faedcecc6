"""Writes docs/RECIPE.md: every setting of a recipe, as the code has it.

python -m scripts.recipe_reference
"""

from __future__ import annotations

from pathlib import Path

from dq_toolchain import backends
from dq_toolchain.toolchain.cli.calibration import PLACES
from dq_toolchain.toolchain.disk.files import write_bytes
from dq_toolchain.toolchain.recipe.loading import OF_A_MODEL
from dq_toolchain.toolchain.recipe.sections import ExportSection, with_targets
from dq_toolchain.toolchain.recipe.writing import reference_tables

FILE = Path(__file__).parent.parent / "docs" / "RECIPE.md"
HEAD = """\
<!-- written by `python -m scripts.recipe_reference`: change descriptions in the code, not here -->

# The recipe

A recipe is a TOML file with the settings of `calibrate`, `compare` and `export`:
`dq-toolchain calibrate --recipe dq.toml`. Every key may be left out. Settings are taken from these
places; a later one replaces an earlier one:

1. the defaults below;
2. the file `dq.toml` in the model's folder. It may set {of_a_model},
   and no paths;
3. the file that `--recipe` names;
4. flags of the command line.

`dq-toolchain recipe [flags]` prints the recipe that these come to, as a file with comments.
A value of another type is refused, not converted: `steps = "20"` is an error. All mistakes of a
file come in one line.

The defaults in `[calibrate]` and `[blocks]` are those of `effort = "standard"` and weights of 7 or 8
bits. Fewer bits of weights, activations of 2 to 5 bits, or a budget take others:
[METHOD.md](METHOD.md#effort-and-bits).

Flags in a target's section belong to `export`. A flag that several targets have is one flag.

"""


def reference() -> str:
    """The whole page."""
    sections = backends.sections()
    flags = [*PLACES.values(), *(("export", key) for key in ExportSection.model_fields)]
    flags += [(target, key) for target, section in sections.items() for key in section.model_fields]
    head = HEAD.format(of_a_model=", ".join(f"`[{name}]`" for name in OF_A_MODEL))
    return head + reference_tables(with_targets(sections), flags)


if __name__ == "__main__":
    write_bytes(FILE, reference().encode())
    print(FILE)
