"""Prints, separated by semicolons: version, include folder and the libraries to link of the installed executorch wheel."""

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

LIBRARIES = ("executorch", "executorch_kernels_optimized", "executorch_backend_xnnpack", "executorch_threadpool")

spec = find_spec("executorch")
if spec is None or not spec.submodule_search_locations:
    raise SystemExit("executorch is not installed")
folder = Path(spec.submodule_search_locations[0])
libraries = [folder / "lib" / f"lib{name}.so" for name in LIBRARIES]
missing = [str(path) for path in libraries if not path.is_file()]
if missing:
    raise SystemExit(f"executorch {version('executorch')} lacks {', '.join(missing)}; 1.5 and later have them")
print(";".join(map(str, (version("executorch"), folder / "include", *libraries))))
