"""Prints the path of libonnxruntime.so of the installed onnxruntime wheel."""

from importlib.util import find_spec
from pathlib import Path

spec = find_spec("onnxruntime")
if spec is None or not spec.submodule_search_locations:
    raise SystemExit("onnxruntime is not installed")
folder = Path(spec.submodule_search_locations[0]) / "capi"
found = sorted(folder.glob("libonnxruntime.so.*"))
if len(found) != 1:
    raise SystemExit(f"{folder} has {len(found)} files libonnxruntime.so.*, expected is 1; 1.24 and later have it")
print(found[0])
