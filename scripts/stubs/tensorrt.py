"""Type stubs of TensorRT's Python API, made from NVIDIA's real bindings: what programs for the device are checked against.

    python -m scripts.stubs.tensorrt [--versions 10.3.0 10.13.3.9 10.16.1.11 11.4.0.106] [--out .nvidia/stubs]

The wheels hold compiled bindings and no stubs. Their libraries are not needed to list classes and signatures: a few empty
functions satisfy the loader. Needs gcc, and pybind11-stubgen from the extra [dev]; nothing of NVIDIA's is committed.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSIONS = ("10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106")
"""As on JetPack 6, 7.1, 7.2, and 7.2.2 and later; the last has strong typing only."""
OUT = Path(".nvidia/stubs")
WHEEL, MODULE = "tensorrt-cu12-bindings", "tensorrt_bindings.tensorrt"
LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")
EMPTY = "".join(
    f"void* {name}(void){{return 0;}}\n"
    for name in (
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "createNvOnnxParserRefitter_INTERNAL",
        "createNvOnnxParser_INTERNAL",
        "getBuilderPluginRegistry",
        "getNvOnnxParserVersion",
        "getPluginRegistry",
        "initLibNvInferPlugins",
        "getInferLibVersion",
        "getInferLibBuildVersion",
        "getLogger",
    )
)
HEADER = "# mypy: ignore-errors"
"""What is wrong inside a stub is not ours to judge; what a program takes from it is."""
ANY = "(*args: typing.Any, **kwargs: typing.Any) -> typing.Any:"


def make(version: str, out: Path) -> Path:
    """Write ``out``/VERSION/tensorrt/__init__.pyi and return its folder, to be put on MYPYPATH."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, f"{WHEEL}=={version}")
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extractall(folder / "wheel")
        (folder / "empty.c").write_text(EMPTY)
        for library in LIBRARIES:
            soname = f"lib{library}.so.{version.partition('.')[0]}"
            _run("gcc", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", folder / soname, folder / "empty.c")
        paths = {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder / "wheel")}
        _run(
            sys.executable,
            "-m",
            "pybind11_stubgen",
            MODULE,
            "-o",
            folder / "stubs",
            "--ignore-all-errors",
            "--numpy-array-remove-parameters",
            environment=paths,
        )
        made = next((folder / "stubs").rglob("*.pyi"))
        target = out / version / "tensorrt"
        target.mkdir(parents=True, exist_ok=True)
        (target / "__init__.pyi").write_text(f"{HEADER}\n{repair(made.read_text())}\n__version__: str\n")
        (target / "py.typed").touch()
    return target.parent


def repair(text: str) -> str:
    """A stub that parses: what is no Python is replaced, definition by definition. One that does not parse checks nothing."""
    text = re.sub(r"= <[^>\n]*>", "= ...", text)
    text = re.sub(r"<[\w.]+: -?\d+>", "...", text)
    text = re.sub(r":\s*<[^>\n]*>", ": typing.Any", text)
    lines = text.split("\n")
    for _ in range(len(lines)):
        try:
            ast.parse("\n".join(lines))
        except SyntaxError as error:
            place = (error.lineno or 1) - 1
            indent = len(lines[place]) - len(lines[place].lstrip())
            definition = re.match(r"(\s*)def (\w+)\(", lines[place])
            body = " ..." if lines[place].rstrip().endswith("...") else ""
            lines[place] = f"{definition[1]}def {definition[2]}{ANY}{body}" if definition else ""
            if not definition and indent and "indent" not in str(error):
                lines[place] = " " * indent + "pass"
        else:
            return "\n".join(lines)
    raise SystemExit("the stubs cannot be repaired; report it with the versions")


def _run(*command: object, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | (environment or {}),
    )
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} {command[1]} failed: {' '.join(done.stderr.split())[-500:]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", nargs="+", default=list(VERSIONS))
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    for each in given.versions:
        print(make(each, given.out))
