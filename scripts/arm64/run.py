"""Runs an ExecuTorch bundle on the Arm64 build of ExecuTorch, emulated by QEMU, and writes the device report.

    python -m scripts.arm64.run --bundle dq-out/executorch --report dq-out/arm64 [--seeds N] [--cpu cortex-a76]
                            [--threads N] [--setup-only] [--folder .arm64]
    dq-toolchain validate dq-out/arm64

The kernels are those of a phone, the times are not: the report says that it was emulated and holds none. The sampler
runs here, only the program is executed over there. The first call fills --folder with 4.9 GB: Debian packages, from
DEBIAN_MIRROR or where apt gets them, and wheels, from pip's index. Needs Linux with apt-get, dpkg, debootstrap and,
unless root, fakeroot.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from dq_toolchain.backends.base import Runtime
from dq_toolchain.backends.common.sampling import held_out, sample
from dq_toolchain.backends.common.schedule import Schedule
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.console.quiet import quiet_imports
from dq_toolchain.toolchain.errors import BackendError, ToolchainError
from dq_toolchain.toolchain.formats.bundle import Bundle
from scripts.arm64.process import Worker
from scripts.arm64.setup import Emulator, set_up

FOLDER, CPU = Path(".arm64"), "cortex-a76"
ISA = "aarch64"


def run(
    folder: Path,
    out: Path,
    emulator: Emulator,
    seeds: int | None = None,
    cpu: str = CPU,
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Sample the bundle in ``folder`` and write its report to ``out``; returns the path of report.json.

    Args:
        seeds: only the first so many; None is all.
        cpu: one of QEMU's names. threads: of XNNPACK; None is its own choice.
    Raises:
        BackendError: the program does not load or execute, the emulation ended, or an argument is out of range.
        ToolchainError: a file of the bundle is damaged, or ``out`` cannot be written.
    """
    bundle = Bundle.load(folder)
    reference = held_out(bundle, folder, "executorch", seeds)
    schedule = Schedule.of(bundle, folder)
    with Worker(emulator.python(cpu), emulator.environment(), (folder / bundle.program).resolve(), threads) as worker:
        if worker.machine != ISA:
            raise BackendError(
                f"the worker runs on {worker.machine}, not {ISA}; remove the setup's folder and run again"
            )

        def execute(k: int, x: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
            return worker(schedule.method_of_step[k], schedule.call(k, x, timestep, conditioning).arguments)

        model = "-".join(word.capitalize() for word in cpu.split("-"))
        runtime = Runtime(
            "ExecuTorch",
            f"{worker.version}, {worker.machine}",
            f"XNNPACK CPU, emulated {model} (QEMU {emulator.qemu_version})",
            0.0,
            emulated=True,
            device=f"emulated {model}",
        )
        return sample(bundle, folder, out, reference, execute, runtime, progress)


def main(arguments: list[str]) -> int:
    """Exit status: 0 the report was written, 2 a line on stderr says why not."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.arm64.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--bundle", type=Path, default=Path("dq-out/executorch"), help="exported bundle [default: %(default)s]"
    )
    parser.add_argument(
        "--report", type=Path, default=Path("dq-out/arm64"), help="folder of the report [default: %(default)s]"
    )
    parser.add_argument("--seeds", type=int, help="held-out seeds to run [default: all]")
    parser.add_argument("--cpu", default=CPU, help="QEMU's name of the CPU, e.g. max [default: %(default)s]")
    parser.add_argument(
        "--threads", type=int, choices=range(1, 257), metavar="1-256", help="of XNNPACK [default: its own choice]"
    )
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="where the emulated system lies [default: %(default)s]"
    )
    parser.add_argument("--setup-only", action="store_true", help="fetch it and stop")
    given = parser.parse_args(arguments)
    quiet_imports()
    try:
        if not given.setup_only:
            Bundle.load(given.bundle)  # what is wrong with it is better said before the setup
        emulator = set_up(given.folder, lambda line: print(line, file=sys.stderr, flush=True))
        if given.setup_only:
            print(f"set up in {given.folder}")
            return 0
        with Reporter().bar("sampling, emulated") as progress:
            path = run(given.bundle, given.report, emulator, given.seeds, given.cpu, given.threads, progress)
    except (ToolchainError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again", file=sys.stderr)
        return 130
    print(f"device report: {path}\nnext: dq-toolchain validate {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
