"""The host's side of a worker: starts it, asks, and turns every way in which it can fail into one line."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from dq_toolchain.toolchain.errors import BackendError
from scripts.arm64.worker import read_frame, write_frame

PROGRAM = Path(__file__).with_name("worker.py")
LIMIT_S = 600.0
"""The longest that one answer may take; an emulated execution takes seconds."""


class Worker:
    """A program in another process, which may be emulated. To be used in a ``with``.

    Attributes:
        machine: what Python says it runs on there, e.g. aarch64.
        version: of executorch there.
    """

    def __init__(
        self,
        python: Sequence[str],
        environment: Mapping[str, str],
        program: Path,
        threads: int | None = None,
        limit_s: float = LIMIT_S,
    ) -> None:
        """Start ``python`` (a command) and wait until the program is loaded. Raises BackendError."""
        self._limit_s = limit_s
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the worker)
        command = [*python, str(PROGRAM), str(program), *([] if threads is None else [str(threads)])]
        try:
            self._process = subprocess.Popen(
                command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
            )
        except OSError as error:
            self._log.close()
            raise BackendError(
                f"cannot start {python[0]}: {error.strerror}; remove the setup's folder and run again"
            ) from error
        try:
            about, _ = self._answer()
        except BaseException:
            self.close()
            raise
        self.machine, self.version = str(about["machine"]), str(about["executorch"])

    def __call__(self, method: str, inputs: Sequence[Tensor]) -> Tensor:
        """The first output of one method, a copy of its own, as ``backends.executorch.device.Device`` gives it.

        Raises:
            BackendError: the runtime reports an error, or the worker ended or does not answer.
        """
        _, tensors = self._answer(method, inputs)
        output: Tensor = tensors[0]
        return output

    def close(self) -> None:
        """End the worker; it may be gone already."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, method: str = "", inputs: Sequence[Tensor] = ()) -> tuple[dict[str, Any], list[Any]]:
        """Header and tensors of the next answer; without a method, of the one that comes unasked."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._killed_when_late() as late:
            try:
                with contextlib.suppress(BrokenPipeError):  # it ended: reading the answer says how
                    if method:
                        write_frame(self._process.stdin, {"method": method}, inputs)
                header, tensors = read_frame(self._process.stdout)
            except (EOFError, ValueError, LookupError) as error:
                raise BackendError(self._how_it_ended(late.is_set(), error)) from error
        if "error" in header:
            raise BackendError(f"ExecuTorch in the worker: {header['error']}; run `dq-toolchain export` again")
        return header, tensors

    @contextlib.contextmanager
    def _killed_when_late(self) -> Iterator[threading.Event]:
        """Ends a worker that is stuck, so that writing and reading end too; the event says that it was so."""
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(self._limit_s, end)
        timer.daemon = True
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()

    def _how_it_ended(self, late: bool, error: Exception) -> str:
        if late:
            return f"the worker gave no answer for {self._limit_s:g} s and was ended; run it with less other load"
        if not isinstance(error, EOFError):
            what = f"{type(error).__name__}: {error}"
            return f"the worker's answer cannot be read ({what}); remove the setup's folder and run again"
        status = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        ended = f"signal {-status}" if status < 0 else f"exit status {status}"
        return f"the worker ended with {ended}: {said[:300]}; check --cpu, or remove the setup's folder and run again"
