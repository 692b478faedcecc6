"""Diffusion models in integers: calibrate, export to a device runtime, validate the pictures.

    import dq_toolchain as dq

    calibration = dq.calibrate("owner/name", prompts="prompts.txt", guidance=7.5)
    bundle = dq.export(calibration, "coreml")
    verdict = dq.validate(dq.run(bundle))
    print(verdict.outcome)

Nothing heavy (torch, diffusers) is imported before the first call.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# ``dq.calibrate`` is the function. Importing the package of that name for the first time sets an attribute here, so it is done
# now, before the function takes the name for good: later imports of its modules leave the attribute as it is. Those modules
# are reached as ``from dq_toolchain.calibrate.data import samples``.
importlib.import_module(f"{__name__}.calibrate")

from dq_toolchain.api.analysis import analyze  # noqa: E402
from dq_toolchain.api.calibration import calibrate  # noqa: E402
from dq_toolchain.api.device import export, run  # noqa: E402
from dq_toolchain.api.generation import generate  # noqa: E402
from dq_toolchain.api.judgement import validate  # noqa: E402
from dq_toolchain.api.results import Bundle, Calibration, Report  # noqa: E402
from dq_toolchain.toolchain import errors  # noqa: E402
from dq_toolchain.toolchain.errors import ToolchainError as DqError  # noqa: E402

if TYPE_CHECKING:
    from dq_toolchain.toolchain.verdict.result import Verdict

__all__ = [
    "Bundle",
    "Calibration",
    "DqError",
    "Report",
    "Verdict",
    "analyze",
    "calibrate",
    "errors",
    "export",
    "generate",
    "run",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name == "Verdict":
        from dq_toolchain.toolchain.verdict.result import Verdict

        return Verdict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
