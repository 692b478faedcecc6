"""Prints, separated by semicolons: version, include folder and the libraries to link of the installed executorch wheel."""

import sysconfig
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path


def folder_of(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed")
    return Path(spec.submodule_search_locations[0])


executorch, torch = folder_of("executorch"), folder_of("torch")
python = Path(sysconfig.get_config_var("LIBDIR")) / sysconfig.get_config_var("LDLIBRARY")
libraries = [
    executorch / "extension" / "pybindings" / f"_portable_lib{sysconfig.get_config_var('EXT_SUFFIX')}",
    executorch / "backends" / "qualcomm" / "libqnn_executorch_backend.so",  # holds the registry of backends
    *(torch / "lib" / f"lib{name}.so" for name in ("torch_python", "torch", "torch_cpu", "c10")),
    python,
]
missing = [str(path) for path in libraries if not path.is_file()]
if missing:
    raise SystemExit(f"not found: {', '.join(missing)}")
print(";".join(map(str, (version("executorch"), executorch / "include", *libraries))))
