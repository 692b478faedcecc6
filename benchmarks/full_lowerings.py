"""Each target's own lowering of an artifact, without a bundle around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dq_toolchain.backends.base import Say
from dq_toolchain.backends.common.call import Call
from dq_toolchain.backends.common.qdq.audit import Expected
from dq_toolchain.backends.common.qdq.qparams import QParams
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.toolchain.formats.artifact import Artifact

Size = dict[str, Any]
Lowering = Callable[[Artifact, Call, Path, Say, bool], Size]


def _tensorrt(artifact: Artifact, call: Call, out: Path, say: Say, execute: bool) -> Size:
    from dq_toolchain.backends.common.onnx.cost import COST
    from dq_toolchain.backends.common.onnx.session import Sessions
    from dq_toolchain.backends.tensorrt.lowering import write_graphs
    from dq_toolchain.backends.tensorrt.settings import Settings

    written = write_graphs(artifact, call, Settings(), out, say)
    say("written and audited")
    if execute:
        Sessions(out)(written.methods[0], call.named)
        say("executed")
    return {"integer": sum(each.int8 for each in written.placements), "says": COST.of(artifact, call)}


def _coreai(artifact: Artifact, call: Call, out: Path, say: Say, execute: bool) -> Size:
    from dq_toolchain.backends.coreai.lowering import COST, write_program
    from dq_toolchain.backends.coreai.runtime.device import open_asset
    from dq_toolchain.backends.coreai.settings import Settings

    written = write_program(artifact, call, Settings(), Expected(QParams.of(artifact)), out, say)
    say("written and audited")
    return _executed(artifact, call, out, say, execute, written, open_asset) | {"says": COST.of(artifact, call)}


def _coreml(artifact: Artifact, call: Call, out: Path, say: Say, execute: bool) -> Size:
    from dq_toolchain.backends.coreml.lowering import COST, write_program
    from dq_toolchain.backends.coreml.runtime.device import open_package
    from dq_toolchain.backends.coreml.settings import Settings

    written = write_program(artifact, call, Settings(), Expected(QParams.of(artifact)), out, say)
    say("written and audited")
    return _executed(artifact, call, out, say, execute, written, open_package) | {"says": COST.of(artifact, call)}


def _executed(artifact: Artifact, call: Call, out: Path, say: Say, execute: bool, written: Any, opened: Any) -> Size:
    if execute:
        schedule = Schedule(tuple(written.sites), range(len(artifact.step_groups)), None)
        step, runtime = opened(out / written.program, schedule)
        step(0, call.sample + 1, call.timestep, call.conditioning)
        say(f"executed by {runtime.name}")
    return {"integer": len(next(iter(written.sites.values())))}


LOWERINGS: dict[str, Lowering] = {"tensorrt": _tensorrt, "coreai": _coreai, "coreml": _coreml}
