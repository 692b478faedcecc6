"""Where CMake finds ONNX Runtime, and what it says where it does not; nothing is compiled."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime_samples.building import SAMPLES
from tests.runtime_samples.qnn.conftest import STAND_IN

pytestmark = pytest.mark.skipif(not shutil.which("cmake"), reason="needs cmake")


def configure(folder: Path, *options: str) -> tuple[bool, str]:
    """Whether it works, and what was said, in one line."""
    command = ["cmake", "-S", str(SAMPLES / "qnn"), "-B", str(folder), f"-DDQ_PYTHON={sys.executable}", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0, " ".join(done.stderr.split())


def layout(root: Path, headers: str, library: str) -> Path:
    """A folder with a header and an empty library at these places; returns the library."""
    (root / headers).mkdir(parents=True)
    shutil.copy(STAND_IN / "onnxruntime_c_api.h", root / headers)
    (root / library).parent.mkdir(parents=True)
    (root / library).touch()
    return root / library


def test_an_unpacked_aar(tmp_path: Path) -> None:
    """The paths inside an AAR, not a build for Android."""
    aar = tmp_path / "phone"
    library = layout(aar, "headers", "jni/arm64-v8a/libonnxruntime.so")
    given = ("-DANDROID=ON", "-DANDROID_ABI=arm64-v8a", f"-DDQ_ONNXRUNTIME={aar}")
    works, said = configure(tmp_path / "build", *given)
    assert works, said
    library.unlink()
    assert configure(tmp_path / "build", *given)[1].count(f"there is no {library}; name an unpacked release") == 1


@pytest.mark.parametrize("by", ["path", "release"])
def test_an_unpacked_release(by: str, tmp_path: Path) -> None:
    """By its path, and as CMake unpacks what it downloads."""
    folder = tmp_path / "onnxruntime"
    layout(folder, "include", "lib/libonnxruntime.so")
    given = [f"-DDQ_ONNXRUNTIME={folder}"]
    if by == "release":
        given = ["-DDQ_ONNXRUNTIME=release", f"-DFETCHCONTENT_SOURCE_DIR_ONNXRUNTIME_RELEASE={folder}"]
    works, said = configure(tmp_path / "build", *given)
    assert works, said
    assert not said


def test_the_wheel_with_the_header_of_the_release(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "onnxruntime"
    layout(folder, "include", "lib/libonnxruntime.so")
    given = ("-DDQ_ONNXRUNTIME=wheel", f"-DFETCHCONTENT_SOURCE_DIR_ONNXRUNTIME_RELEASE={folder}")
    works, said = configure(tmp_path / "build", *given)
    assert works, said
    link = tmp_path / "build" / "onnxruntime" / "libonnxruntime.so.1"
    assert link.resolve().name.startswith("libonnxruntime.so.1.")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "DQ_ONNXRUNTIME is empty; say -DDQ_ONNXRUNTIME=release or wheel, or name an unpacked release or AAR"),
        (("-DDQ_ONNXRUNTIME=/none",), "there is no /none/include/onnxruntime_c_api.h; name an unpacked release"),
        (("-DDQ_ONNXRUNTIME=wheel", "-DDQ_PYTHON=/none/python"), "/none/python has no onnxruntime to link with"),
        (("-DDQ_ONNXRUNTIME=wheel", "-DDQ_SANITIZE=ON"), "DQ_SANITIZE is for the core and its tests"),
    ],
)
def test_what_is_refused(options: tuple[str, ...], text: str, tmp_path: Path) -> None:
    works, said = configure(tmp_path / "build", *options)
    assert not works
    assert text in said
