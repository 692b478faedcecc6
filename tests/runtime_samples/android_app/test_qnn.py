"""The app's library with ONNX Runtime in the place of ExecuTorch: Java draws the picture of `dq-toolchain generate`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

import dq_toolchain as dq
from tests.runtime_samples.android_app.jvm import MAIN, Jvm, jdk, pixels
from tests.runtime_samples.building import TOGETHER, build
from tests.runtime_samples.qnn.conftest import HEADERS, STAND_IN
from tests.runtime_samples.qnn.test_generate import PROMPT, pipeline

__all__ = ["pipeline"]


@pytest.mark.slow
def test_the_picture_is_the_hosts(
    pipeline: Path, java_classes: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    headers = os.environ.get(HEADERS, str(STAND_IN))
    runtime = ("-DDQ_RUNTIME=qnn", "-DDQ_ONNXRUNTIME=wheel", f"-DDQ_ONNXRUNTIME_HEADERS={headers}")
    options = (*runtime, f"-DDQ_PYTHON={sys.executable}", f"-DJAVA_HOME={jdk()}", *TOGETHER)
    built = build(tmp_path_factory, MAIN / "cpp", "android-qnn", ["dq_draw"], *options)
    jvm = Jvm(java_classes, built / "libdq_draw.so")
    words = ("--prompt", PROMPT, "--seed", "7", "--low-memory")
    runs = [("draw", pipeline, tmp_path / memory, *words, memory) for memory in ("true", "false")]
    inspected, *printed = jvm.run(("inspect", pipeline), *runs)
    assert inspected[-1] == "takes prompt"
    wanted = dq.generate(pipeline, PROMPT, seed=7).pixels.permute(1, 2, 0).numpy()
    for (_, _, out, *_), lines in zip(runs, printed, strict=True):
        assert lines[-1] == "times true memory true"
        np.testing.assert_array_equal(pixels(Path(out)), wanted)
