"""One weight file for all graphs of a bundle: large constants lie in it, small ones, the scales among them, in the graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dq_toolchain.backends.common.onnx.libraries import onnx_ir

FILE = "weights.bin"
LARGE = 1024
"""Bytes from which a constant moves out of the graph."""
PAGE = 4096
"""Every constant starts at a page, so that the file can be mapped."""


def release(graph: Any) -> None:
    """Unmap the weight file of a graph that was read; without it every graph keeps the whole file in memory."""
    for value in graph.initializers.values():
        if isinstance(value.const_value, onnx_ir().ExternalTensor):
            value.const_value.release()


def share_weights(model: Any, folder: Path) -> None:
    """Write the large constants of a model to ``folder``/weights.bin; the model then refers to them."""
    ir = onnx_ir()
    with (folder / FILE).open("wb") as file:
        for name, value in sorted(model.graph.initializers.items()):
            tensor = value.const_value
            if tensor.nbytes < LARGE:
                continue
            file.write(b"\0" * (-file.tell() % PAGE))
            start = file.tell()
            file.write(tensor.tobytes())  # two integers of 4 bits in a byte
            value.const_value = ir.ExternalTensor(
                FILE, start, tensor.nbytes, tensor.dtype, shape=tensor.shape, name=name, base_dir=str(folder)
            )
