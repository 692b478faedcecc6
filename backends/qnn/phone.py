"""What a phone that is attached to this machine says of itself, by Android's own tool, ``adb``."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass

from dq_toolchain.backends.qnn.chips import SOCS
from dq_toolchain.toolchain.checks import Check

OLDEST = 31
"""Android API level that Qualcomm's plugin needs: Android 12."""
SECONDS = 10.0
"""For one question; a phone that does not answer is as good as none."""


@dataclass(frozen=True)
class Phone:
    """``chip``: ro.soc.model, such as SM8750. ``level``: of the Android API, None where it is not said."""

    chip: str
    level: int | None


def attached() -> Phone | None:
    """The one phone that adb reaches; None where there is no adb, no phone, or several."""
    if shutil.which("adb") is None or _ask("get-state") != "device":
        return None
    level = _ask("shell", "getprop", "ro.build.version.sdk")
    return Phone(_ask("shell", "getprop", "ro.soc.model"), int(level) if level.isdigit() else None)


def phone_check(phone: Phone, contexts: Collection[str]) -> Check:
    """doctor.phone: can this phone load the bundle?

    Args:
        contexts: chips that the bundle has one for.
    """
    chip, level = phone.chip or "an unnamed chip", phone.level
    fault = ""
    if level is None or level < OLDEST:
        got = "does not say its Android API level" if level is None else f"has Android API level {level}"
        fault = f"the attached phone {got}, Qualcomm's plugin needs {OLDEST} (Android 12) or later; take another phone"
    elif phone.chip not in contexts:
        held = f"for {', '.join(contexts)}" if contexts else "for no chip"
        known = phone.chip in SOCS
        remedy = (
            f"export with --soc {chip}" if known else f"no context is made for it, take a phone with {', '.join(SOCS)}"
        )
        fault = f"the attached phone has {chip}, the bundle has contexts {held}; {remedy}"
    text = fault or f"the attached phone has {chip} and Android API level {level}: there is a context for it"
    return Check("doctor.phone", not fault, None, text)


def _ask(*words: str) -> str:
    try:
        done = subprocess.run(
            ["adb", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
