"""The app's library with the real runtime: Java draws the picture of `dq-toolchain generate`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import dq_toolchain as dq
from tests.api.conftest import drawn
from tests.api.drawing import PROMPT
from tests.runtime_samples.android_app.jvm import MAIN, Jvm, jdk, pixels
from tests.runtime_samples.building import TOGETHER, build

__all__ = ["drawn"]


@pytest.mark.slow
def test_the_picture_is_the_hosts(
    drawn: Path, java_classes: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    pytest.importorskip("executorch")
    options = ("-DDQ_EXECUTORCH=wheel", f"-DDQ_PYTHON={sys.executable}", f"-DJAVA_HOME={jdk()}", *TOGETHER)
    built = build(tmp_path_factory, MAIN / "cpp", "android-executorch", ["dq_draw"], *options)
    jvm = Jvm(java_classes, built / "libdq_draw.so")
    bundle = drawn / "executorch"
    words = ("--prompt", PROMPT, "--seed", "7", "--low-memory")
    printed = jvm.run(*(("draw", bundle, tmp_path / memory, *words, memory) for memory in ("true", "false")))
    wanted = dq.generate(bundle, PROMPT, seed=7).pixels.permute(1, 2, 0).numpy()
    for memory, lines in zip(("true", "false"), printed, strict=True):
        assert lines[-1] == "times true memory true"
        np.testing.assert_array_equal(pixels(tmp_path / memory), wanted)
