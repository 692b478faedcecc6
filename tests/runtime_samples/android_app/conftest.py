"""The app's library with a recording in the place of a runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime_samples.android_app.jvm import HOST, Jvm, classes, jdk
from tests.runtime_samples.building import TOGETHER, build


@pytest.fixture(scope="session")
def java_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classes(tmp_path_factory)


@pytest.fixture(scope="session")
def replaying(java_classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Jvm:
    home = f"-DJAVA_HOME={jdk()}"
    built = build(
        tmp_path_factory,
        HOST,
        "android-host",
        ["dq_draw"],
        home,
        "-DCMAKE_BUILD_TYPE=Debug",
        "-DCMAKE_CXX_FLAGS=-g0",
        *TOGETHER,
    )
    return Jvm(java_classes, built / "app" / "libdq_draw.so")
