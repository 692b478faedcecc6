"""Executes a .pte for another process: runs inside the emulated Python and imports nothing of dq-toolchain.

    python arm64_worker.py MODEL.pte [THREADS]

Frames on stdin and stdout, both ways alike: eight bytes, little-endian, the length of the header; the header, a JSON
object with `tensors`, a list of `{"dtype", "shape"}`; then the bytes of the tensors, row-major, one after the other. A
request's header names the `method`; its answer has the first output as its tensor, or `error`, a line. The first answer
comes unasked, without a tensor: the program is loaded, on what `machine` and by which version of `executorch`. The end
of stdin ends the worker.
"""

from __future__ import annotations

import json
import math
import os
import platform
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any

SIZES = {"float32": 4, "int64": 8}
LENGTH = struct.Struct("<Q")
LARGEST_HEADER = 1 << 20


def write_frame(stream: IO[bytes], header: Mapping[str, Any], tensors: Sequence[Any] = ()) -> None:
    """Send a header and torch tensors. Raises ValueError: a dtype that is not in SIZES; OSError: nobody listens."""
    described = [{"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)} for tensor in tensors]
    wrong = [row["dtype"] for row in described if row["dtype"] not in SIZES]
    if wrong:
        raise ValueError(f"tensors must be {' or '.join(SIZES)}, got {wrong[0]}")
    encoded = json.dumps({**header, "tensors": described}).encode()
    stream.write(LENGTH.pack(len(encoded)) + encoded)
    for tensor in tensors:
        stream.write(tensor.detach().contiguous().numpy().tobytes())
    stream.flush()


def read_frame(stream: IO[bytes]) -> tuple[dict[str, Any], list[Any]]:
    """Header and torch tensors of the next frame.

    Raises:
        EOFError: the stream ends before or within it. ValueError, LookupError: this is no frame.
    """
    import torch

    length = LENGTH.unpack(_exactly(stream, LENGTH.size))[0]
    if length > LARGEST_HEADER:
        raise ValueError(f"the header of a frame is at most {LARGEST_HEADER} bytes, got {length}")
    header: dict[str, Any] = json.loads(_exactly(stream, length))
    tensors = []
    for row in header["tensors"]:
        data = bytearray(_exactly(stream, math.prod(row["shape"]) * SIZES[row["dtype"]]))
        tensors.append(torch.frombuffer(data, dtype=getattr(torch, row["dtype"])).reshape(row["shape"]))
    return header, tensors


def _exactly(stream: IO[bytes], count: int) -> bytes:
    """BufferedReader.read waits for all of it or the end."""
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def serve(program: str, threads: int | None, requests: IO[bytes], answers: IO[bytes]) -> int:
    """Answer until the requests end; an error of the runtime is an answer. Returns the exit status."""
    try:
        from importlib.metadata import version

        import torch  # noqa: F401  (the runtime's library finds torch's only if they are loaded already)
        from executorch.extension.pybindings import _C as runtime

        if threads is not None:
            runtime._unsafe_reset_threadpool(threads)
        loaded = runtime._load_program(program, program_verification=runtime.Verification.InternalConsistency)
        methods: dict[str, Any] = {}  # to be kept: loading packs the weights
    except Exception as error:
        write_frame(answers, {"error": _line(error)})
        return 1
    write_frame(answers, {"machine": platform.machine(), "executorch": version("executorch")})
    while True:
        try:
            header, tensors = read_frame(requests)
        except EOFError:
            return 0
        try:
            name = header["method"]
            if name not in methods:
                methods[name] = loaded.load_method(name)
            output = methods[name](tensors)[0]
        except Exception as error:
            write_frame(answers, {"error": _line(error)})
        else:
            write_frame(answers, {}, [output])


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


if __name__ == "__main__":
    own_stdout = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not end up between the frames
    sys.exit(serve(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None, sys.stdin.buffer, own_stdout))
