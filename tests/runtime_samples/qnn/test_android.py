"""What is for the phone, as far as a machine without one can tell: `adb` here is a script that executes on this machine."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from tests.runtime_samples.building import SAMPLES

ANDROID = SAMPLES / "qnn" / "android"
NAMESPACE = "{http://schemas.android.com/apk/res/android}"
ADB = """#!/usr/bin/env bash
# /data/local/tmp of the phone is a folder here; getprop answers from the environment.
set -e
args=("${@//\\/data\\/local\\/tmp/$PHONE}")
case "${args[0]}" in
get-state) echo device ;;
shell)
    case "${args[*]:1}" in
    "getprop ro.build.version.sdk") printf '%s\\r\\n' "$PHONE_SDK" ;;
    "getprop ro.soc.model") printf '%s\\r\\n' "$PHONE_SOC" ;;
    *) exec bash -c "${args[*]:1}" ;;
    esac
    ;;
push) cp -r "${args[1]}" "${args[2]}" ;;
pull) cp "${args[1]}" "${args[2]}" ;;
esac
"""
PROGRAM = """#!/usr/bin/env bash
# Writes down what it was started with, and a report.
set -e
home="$(dirname "$0")"
mkdir "$home/report"
{
    printf '%s\\n' "$*" "$LD_LIBRARY_PATH" "$ADSP_LIBRARY_PATH"
    (cd "$home/lib" && echo *)
    (cd "$home/bundle" && echo *)
} > "$home/report/report.json"
echo tensors > "$home/report/report.safetensors"
"""
LIBRARIES = [
    "libQnnHtp.so", "libQnnHtpV79Skel.so", "libQnnHtpV79Stub.so", "libQnnSystem.so", "libonnxruntime.so",
    "libonnxruntime_providers_qnn.so",
]  # fmt: skip


def _executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Phone:
    """A folder in the place of a phone, and what is pushed to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = _executable(folder / "dq-run", PROGRAM)
        _executable(folder / "bin" / "adb", ADB)
        self.libraries, self.bundle, self.disk = folder / "libraries", folder / "bundle", folder / "disk"
        for part in (self.libraries, self.bundle / "SM8750", self.disk):
            part.mkdir(parents=True)
        for name in (*LIBRARIES, "libQnnHtpPrepare.so"):
            (self.libraries / name).write_text(name)
        (self.bundle / "bundle.json").write_text("{}")

    def run(self, *options: str, sdk: str = "34", soc: str = "SM8750") -> subprocess.CompletedProcess[str]:
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        given = (self.program, self.libraries, self.bundle, self.folder / "report", *options)
        return subprocess.run(
            [str(ANDROID / "run.sh"), *map(str, given)], capture_output=True, text=True, check=False,
            env=os.environ | {"PATH": path, "PHONE": str(self.disk), "PHONE_SDK": sdk, "PHONE_SOC": soc},
        )  # fmt: skip


@pytest.fixture
def phone(tmp_path: Path) -> Phone:
    return Phone(tmp_path)


def test_a_run_on_the_phone(phone: Phone) -> None:
    done = phone.run("--seeds", "2", "--guidance", "7.5")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{phone.folder / 'report'}\n"
    started, path, dsp, libraries, bundle = (phone.folder / "report" / "report.json").read_text().splitlines()
    (place,) = re.findall(r"--bundle (\S+)/bundle ", started)
    assert started == (
        f"--bundle {place}/bundle --report {place}/report --soc SM8750 --qnn-library {place}/lib/libonnxruntime_providers_qnn.so "
        "--seeds 2 --guidance 7.5"
    )
    assert path == f"{place}/lib:/vendor/lib64"
    assert dsp.split(";")[0] == f"{place}/lib"
    assert sorted(libraries.split()) == sorted(LIBRARIES), "the compiler stays here, it is the largest"
    assert bundle.split() == ["SM8750", "bundle.json"]
    assert (phone.folder / "report" / "report.safetensors").read_text() == "tensors\n"
    assert list(phone.disk.iterdir()) == [], "nothing stays on the phone"


@pytest.mark.parametrize(
    ("options", "of_phone", "text"),
    [
        (("--soc", "SM8650"), {}, "no contexts for SM8650 (the phone's chip is SM8750); export it with --soc SM8650"),
        ((), {"soc": "SM8850"}, "no contexts for SM8850"),
        ((), {"sdk": "30"}, "API level 30, Qualcomm's plugin needs 31"),
        ((), {"sdk": ""}, "does not say its version of Android"),
        (("--soc",), {}, "--soc needs a value"),
        (("--seeds", "2;reboot"), {}, "unknown argument '2;reboot'"),
    ],
)
def test_what_is_refused(options: tuple[str, ...], of_phone: dict[str, str], text: str, phone: Phone) -> None:
    done = phone.run(*options, **of_phone)
    assert done.returncode == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (phone.folder / "report").exists()
    assert list(phone.disk.iterdir()) == []


def test_a_run_that_fails_leaves_nothing_on_the_phone(phone: Phone) -> None:
    _executable(phone.program, "#!/bin/sh\necho 'dq-run: no' >&2; exit 2\n")
    done = phone.run()
    assert done.returncode == 2
    assert "dq-run: no" in done.stderr
    assert list(phone.disk.iterdir()) == []


def test_libraries_that_were_not_unpacked(phone: Phone) -> None:
    (phone.libraries / "libQnnHtpV79Skel.so").unlink()
    done = phone.run()
    assert done.returncode == 2
    assert "Skel.so; run android/build.sh" in done.stderr


def test_build_without_an_ndk(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ANDROID_NDK"}
    for given, text in (
        ({}, "ANDROID_NDK is not set"),
        ({"ANDROID_NDK": str(tmp_path)}, "android.toolchain.cmake; set"),
    ):
        done = subprocess.run(
            [str(ANDROID / "build.sh")], capture_output=True, text=True, check=False, env=environment | given
        )
        assert done.returncode == 2
        assert text in done.stderr


def _versions() -> dict[str, Any]:
    return tomllib.loads((ANDROID / "gradle" / "libs.versions.toml").read_text())


def test_coordinates_stand_in_one_place() -> None:
    found = _versions()
    modules = {name: row["module"] for name, row in found["libraries"].items()}
    assert modules == {
        "onnxruntime": "com.microsoft.onnxruntime:onnxruntime-android",
        "qnn": "com.qualcomm.qti:onnxruntime-android-qnn",
        "qairt": "com.qualcomm.qti:qnn-runtime",
    }
    assert {row["version"]["ref"] for row in found["libraries"].values()} == set(found["versions"])
    script = (ANDROID / "build.gradle.kts").read_text()
    assert set(re.findall(r"variantOf\(libs\.(\w+)\)", script)) == set(modules)
    for path in (*ANDROID.rglob("*.kts"), *ANDROID.glob("*.sh")):
        assert not [version for version in found["versions"].values() if version in path.read_text()], path
    readme = (SAMPLES / "qnn" / "README.md").read_text()
    for name, module in modules.items():
        assert f"`{module}:{found['versions'][found['libraries'][name]['version']['ref']]}`" in readme


@pytest.mark.qnn
def test_versions_are_those_of_the_compiler() -> None:
    """A phone's runtime refuses contexts of a later one."""
    spec = importlib.util.find_spec("onnxruntime_qnn")
    assert spec is not None
    assert spec.origin is not None
    text = (Path(spec.origin).parent / "build_and_package_info.py").read_text()
    wheel = dict(re.findall(r"^(\w+) = '(.*)'$", text, re.MULTILINE))
    versions = _versions()["versions"]
    assert (versions["qnn"], versions["qairt"]) == (wheel["__version__"], wheel["qnn_version"])


def test_manifest_lets_an_app_reach_the_dsp() -> None:
    application = ElementTree.parse(ANDROID / "AndroidManifest.xml").getroot().find("application")
    assert application is not None
    assert application.get(f"{NAMESPACE}extractNativeLibs") == "true"
    (library,) = application.findall("uses-native-library")
    assert library.attrib == {f"{NAMESPACE}name": "libcdsprpc.so", f"{NAMESPACE}required": "false"}
