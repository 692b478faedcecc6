"""Does a bundle's program hold the methods that the bundle names, as far as this machine can tell: asked by `doctor`."""

from __future__ import annotations

from pathlib import Path

from dq_toolchain import backends
from dq_toolchain.backends.base import device_checks_of
from dq_toolchain.toolchain.checks import Check
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.bundle import Bundle


def program_checks(bundle: Bundle, folder: Path) -> tuple[Check, ...]:
    """doctor.target: a target that `run` knows. doctor.program: every method is in the program, which opens; and the target's."""
    known = ", ".join(backends.names())
    if bundle.target not in backends.names():
        return (
            Check(
                "doctor.target", False, None, f"target is {bundle.target!r}, no program runs it; allowed are {known}"
            ),
        )
    target = Check("doctor.target", True, None, f"target {bundle.target}")
    try:
        backend = backends.load(bundle.target)
    except BackendError as error:
        return (target, Check("doctor.program", True, None, f"not opened here: {error}"))
    try:
        held = backend.methods(bundle, folder)
    except BackendError as error:
        return (target, Check("doctor.program", False, None, str(error)))
    missing = [name for name in dict.fromkeys(bundle.methods) if name not in held]
    text = (
        f"holds no method {missing[0]!r}, it has {', '.join(sorted(held)[:10]) or 'none'}"
        if missing
        else "holds every method"
    )
    program = Check("doctor.program", not missing, None, f"{bundle.program} {text}")
    return (target, program, *device_checks_of(backend)(bundle, folder))
