"""Ray: each job of a comparison is one of its tasks, done again elsewhere when its worker is lost.

The only place that imports ray, and only when it is asked for. Ray sends its own pickles between its own processes: whoever can
reach the cluster can run code on it.
"""

from __future__ import annotations

import importlib
import io
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from dq_toolchain.calibrate.compare.driver import Lost
from dq_toolchain.calibrate.compare.elsewhere import Job, Outcome, do_job
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import ToolchainError

INSTALL = "pip install 'dq-toolchain[ray]'"
RETRIES = 3
"""How often a job begins again after its worker was lost."""
ANSWER = 10.0
"""Seconds within which a cluster takes a connection."""
LONGEST = 300
"""Letters of what Ray says of a lost worker, which goes on with pages of advice."""
LOOK = 15.0
"""Seconds between looks which machines there are."""


@contextmanager
def joined(reporter: Reporter) -> Iterator[RayCluster]:
    """The cluster of RAY_ADDRESS, or one that runs here, or one of this machine alone until the end of the block.

    Raises:
        ToolchainError: ray is not installed, or the cluster does not answer.
    """
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_task_oom_retries": str(RETRIES)}  # without end unless it is set
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        text = " ".join(str(error).split())
        raise ToolchainError(
            f"--on ray: ray does not import ({text}); install it on every machine: {INSTALL}"
        ) from error
    ours = not ray.is_initialized()
    if ours:
        try:
            _check_address(os.environ.get("RAY_ADDRESS", ""))
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ToolchainError(_no_answer(error)) from error
    cluster = RayCluster(ray, reporter)
    try:
        with redirect_stdout(
            io.StringIO()
        ):  # Ray prints the last log lines of a lost machine there, where results belong
            yield cluster
    finally:
        cluster.stop()
        if ours:
            ray.shutdown()


def _no_answer(error: Exception) -> str:
    place = os.environ.get("RAY_ADDRESS", "the cluster that `ray start` began here")
    if "InvalidAuthToken" in f"{error} {error.__cause__}":
        return (
            f"--on ray: {place} wants the token that it was started with; set RAY_AUTH_MODE=token, and have the head's "
            "~/.ray/auth_token on every machine"
        )
    return (
        f"--on ray: {place} does not answer ({' '.join(str(error).split())}); start it with `ray start --head`, or set "
        "RAY_ADDRESS to HOST:PORT of one that runs"
    )


def _check_address(address: str) -> None:
    """Raises OSError: nothing listens at HOST:PORT, which Ray would find out in minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()


class RayCluster:
    """Jobs as tasks: one GPU for each that uses one, a CPU for the others."""

    def __init__(self, ray: Any, reporter: Reporter) -> None:
        self.ray, self.reporter = ray, reporter
        self._task = ray.remote(do_job)
        self._running: dict[Any, Job] = {}
        self._machines, self._idle = self._alive(), False

    @property
    def gpus(self) -> int:
        """Of all machines."""
        return int(self.ray.cluster_resources().get("GPU", 0))

    def slots(self, job: Job) -> int:
        """How many such jobs the machines do side by side."""
        return int(self.ray.cluster_resources().get("GPU" if job.uses_gpu else "CPU", 0))

    def start(self, job: Job) -> None:
        """Hand a job out."""
        task = self._task.options(
            name=job.name,
            num_cpus=1,
            num_gpus=int(job.uses_gpu),
            max_retries=RETRIES,
            scheduling_strategy="SPREAD",
        )
        self._running[task.remote(job)] = job

    def finished(self) -> tuple[Job, Outcome | Lost]:
        """The next that is done. Raises ToolchainError: a machine has no dq-toolchain."""
        done: list[Any] = []
        while not done:
            done, _ = self.ray.wait(list(self._running), timeout=LOOK)
            self._look()
        job = self._running.pop(done[0])
        try:
            return job, self.ray.get(done[0])
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ModuleNotFoundError):
                raise ToolchainError(
                    f"a machine of the cluster cannot import what it needs ({error.cause}); install the same on every machine: "
                    f"{INSTALL}"
                ) from error
            raise
        except self.ray.exceptions.RayError as error:
            text = next(iter(str(error).splitlines()), "")[:LONGEST] or type(error).__name__
            return job, Lost(f"its worker was lost {RETRIES + 1} times, the last time: {text}")

    def _look(self) -> None:
        """Say which machines left since the last look, and when none is left that could go on."""
        alive = self._alive()
        for machine in self._machines.keys() - alive.keys():
            self.reporter.warn(f"machine {self._machines[machine]} left the cluster; what it was at begins again")
        idle = all(not self.slots(job) for job in self._running.values())
        if idle and not self._idle:
            self.reporter.say("no machine of the cluster can go on with this; waiting for one that joins")
        self._machines, self._idle = alive, idle

    def _alive(self) -> dict[str, str]:
        """Machines that do jobs: id -> name."""
        return {
            node["NodeID"]: node["NodeManagerHostname"]
            for node in self.ray.nodes()
            if node["Alive"] and any(node["Resources"].get(name, 0) for name in ("CPU", "GPU"))
        }

    def stop(self) -> None:
        """Have nothing done any more."""
        for task in self._running:
            self.ray.cancel(task, force=True)
        self._running.clear()
