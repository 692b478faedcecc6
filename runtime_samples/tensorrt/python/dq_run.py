#!/usr/bin/env python3
"""Run an exported TensorRT bundle on this device and write the device report.

    python3 dq_run.py --bundle FOLDER --report FOLDER

Exit codes: 0 the report was written, 2 bad input or a runtime that refuses.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import NoReturn

import replay
from bundle import Bundle, read_bundle
from errors import Refused, one_line
from onnxruntime_network import OnnxRuntimeNetwork
from reference import read_reference
from report import write_report
from sampler import Network, sample

TARGET = "tensorrt"
REFUSED = 2


class OneLineParser(argparse.ArgumentParser):
    """Says in one line what is wrong with the command line."""

    def error(self, message: str) -> NoReturn:
        raise Refused(f"{one_line(message)}; see --help")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line. Raises Refused."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--bundle", type=Path, required=True, help="folder that `dq-toolchain export --target tensorrt` wrote"
    )
    parser.add_argument("--report", type=Path, required=True, help="folder for report.json and report.safetensors")
    parser.add_argument(
        "--seeds",
        type=int,
        help="run the first N held-out seeds; with fewer than 10 validate "
        'never says pass, at best "not decided"  [default: all]',
    )
    parser.add_argument(
        "--steps", type=int, help="of the step counts that the bundle holds  [default: the calibrated one]"
    )
    parser.add_argument("--guidance", type=float, help="of its guidance scales  [default: the calibrated one]")
    parser.add_argument(
        "--teacher-forced",
        choices=("on", "off"),
        default="on",
        help="off: leave out the second half; validate then says that conformance was not measured  [default: on]",
    )
    parser.add_argument(
        "--backend",
        choices=("tensorrt", "onnxruntime"),
        default="tensorrt",
        help="onnxruntime executes the graphs on the CPU  [default: tensorrt]",
    )
    parser.add_argument(
        "--reload", action="store_true", help="keep one engine in memory, load the next when its step group comes"
    )
    parser.add_argument("--no-cuda-graphs", action="store_true", help="enqueue every execution anew")
    parser.add_argument("--replay", type=Path, help="answer from golden vectors instead: tests of this program")
    return parser.parse_args(arguments)


def open_network(given: argparse.Namespace, bundle: Bundle) -> Network:
    """What executes the bundle. Raises Refused: it is not here, or does not load."""
    if given.replay is not None:
        return replay.ReplayNetwork(given.replay)
    if given.backend == "onnxruntime":
        return OnnxRuntimeNetwork(bundle, given.reload)
    from tensorrt_network import open_tensorrt  # only here: nothing else needs CUDA

    return open_tensorrt(bundle, given.reload, not given.no_cuda_graphs)


def run(given: argparse.Namespace) -> Path:
    """Read, sample, write; returns the path of report.json. Raises Refused."""
    bundle = read_bundle(given.bundle, TARGET if given.replay is None else None).at(given.steps, given.guidance)
    reference = read_reference(bundle)
    reference = reference.first(reference.seeds if given.seeds is None else given.seeds)
    network = open_network(given, bundle)
    try:
        samples = sample(bundle, reference, network, given.teacher_forced == "on", _progress)
        return write_report(given.report, bundle, reference, network, samples)
    finally:
        with contextlib.suppress(Refused):  # never in place of the error that came first
            network.close()


def _progress(done: int, total: int) -> None:
    print(f"seed {done} of {total}", flush=True)


def main(arguments: list[str]) -> int:
    """The exit code."""
    try:
        path = run(parse(arguments))
    except Refused as error:
        print(f"dq_run: {one_line(error, 1000)}", file=sys.stderr)
        return REFUSED
    except (OSError, MemoryError) as error:
        print(
            f"dq_run: {type(error).__name__} {one_line(error)}; free some memory or choose other folders",
            file=sys.stderr,
        )
        return REFUSED
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
