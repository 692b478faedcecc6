"""Qualcomm's compiler in a process of its own: what it takes of memory goes with it, and its death is not ours.

A provider that shares contexts aborts the process that ends before the last session was made, which is what a refused graph leads
to; and where memory runs out, it is that process that the system kills.

The child reads a job from stdin, one line of JSON, and writes lines of JSON: {"graph": name} before each, {"say": text}, {"error":
text}. It ends when its stdin does, so that no compiler outlives who asked for it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from dq_toolchain.backends.base import Say
from dq_toolchain.backends.qnn.graph.biases import method_of
from dq_toolchain.toolchain.errors import BackendError

CONTEXT = "_ctx.onnx"
"""Ends the name of the file that stands for a graph in a context."""


def compile_graphs(
    graphs: Sequence[Path], soc: str, say: Say, *, context: Path | None = None, dumps: Path | None = None
) -> None:
    """Compile graphs for a chip, nothing left to the CPU.

    Args:
        say: is told what the compiler warns of.
        context: folder that takes one context for all graphs, and ``METHOD_ctx.onnx`` of each; None compiles them one by one.
        dumps: folder that takes what ``dump.read_dump`` reads, in a folder per graph.
    Raises:
        BackendError: Qualcomm's library is missing, refuses a graph, or dies of one; the text names it.
    """
    job = {
        "graphs": [str(path.absolute()) for path in graphs], "soc": soc,
        "context": None if context is None else str(context.absolute()),
        "dumps": None if dumps is None else str(dumps.absolute()),
    }  # fmt: skip
    with tempfile.TemporaryFile() as written:
        child = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=written, text=True
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(job) + "\n")
            child.stdin.flush()
            last, finished = _relay(child.stdout, say)
            code = child.wait()
        finally:
            child.kill()
            child.wait()
            child.stdin.close()
            child.stdout.close()
        written.seek(0)
        lines = written.read().decode("utf-8", "replace").split("\n")
    if code or not finished:
        why = f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"
        text = " ".join(" ".join(lines[-3:]).split())
        raise BackendError(
            f"Qualcomm's compiler died on {last or 'its start'} for {soc} with {why} {text[:200]}; nothing was exported; if memory "
            "ran out, close other programs or export for one chip at a time"
        )


def _relay(lines: IO[str], say: Say) -> tuple[str, bool]:
    """The graph that was compiled last, and whether the child came to its end."""
    last, finished = "", False
    for line in lines:
        message: Mapping[str, Any] = json.loads(line)
        if "error" in message:
            raise BackendError(str(message["error"]))
        if "say" in message:
            say(str(message["say"]))
        last, finished = message.get("graph", last), "finished" in message
    return last, finished


def _child(job: Mapping[str, Any], tell: IO[str]) -> None:
    from dq_toolchain.backends.qnn.htp import dump
    from dq_toolchain.backends.qnn.htp.session import open_session

    def send(**message: object) -> None:
        print(json.dumps(message), file=tell, flush=True)

    sessions, graphs = [], [Path(name) for name in job["graphs"]]
    try:
        for path in graphs:
            send(graph=path.name)
            options: dict[str, str] = {}
            if job["dumps"] is not None:
                folder = Path(job["dumps"]) / path.stem
                folder.mkdir(parents=True)
                options = dump.provider_options(folder)
            entries = {} if job["context"] is None else _sharing(path, Path(job["context"]), path is graphs[-1])
            session = open_session(path, job["soc"], lambda text: send(say=text), entries=entries, options=options)
            if entries:
                sessions.append(session)  # alive until the last one writes what all of them share
            else:
                session.close()
        send(finished=True)
    except BackendError as error:
        send(error=str(error))


def _sharing(path: Path, folder: Path, last: bool) -> dict[str, str]:
    return {
        "ep.context_enable": "1",
        "ep.context_embed_mode": "0",
        "ep.context_file_path": str(folder / f"{method_of(path)}{CONTEXT}"),
        "ep.share_ep_contexts": "1",
        **({"ep.stop_share_ep_contexts": "1"} if last else {}),
    }


def _end_with(stdin: IO[str]) -> None:
    stdin.read()
    os._exit(1)


if __name__ == "__main__":
    given = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with, args=(sys.stdin,), daemon=True).start()
    with os.fdopen(os.dup(1), "w") as out:  # a descriptor that native code does not know
        _child(given, out)
    os._exit(0)
