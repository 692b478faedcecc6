"""Sessions on Qualcomm's HTP library, with nothing left to the CPU provider: it compiles a graph for a chip and emulates the chip.

On x86-64 ``libQnnHtp.so`` executes what it compiled; that is slow (0.01-0.2 GMAC/s) and says nothing about speed.
"""

from __future__ import annotations

import atexit
import re
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from dq_toolchain.backends.base import Say
from dq_toolchain.backends.qnn.chips import SOCS
from dq_toolchain.backends.qnn.htp.log import Log, caught
from dq_toolchain.backends.qnn.vendor import backend_path, device, runtime
from dq_toolchain.toolchain.errors import BackendError

NOT_HELD = "This session contains graph nodes that are assigned to the default CPU EP"
WARNINGS = 2
_CODES = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")


class Session:
    """A compiled graph, with ONNX Runtime's interface as far as it is needed here.

    Those that are still open when Python ends are closed before the library's own end, which they would turn into an abort.
    """

    _open: ClassVar[weakref.WeakSet[Session]] = weakref.WeakSet()

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        Session._open.add(self)

    def get_inputs(self) -> Sequence[Any]:
        """Ports with ``name``, ``shape`` and ``type``."""
        ports: Sequence[Any] = self._inner.get_inputs()
        return ports

    def get_outputs(self) -> Sequence[Any]:
        """Ports, as above."""
        ports: Sequence[Any] = self._inner.get_outputs()
        return ports

    def run(self, outputs: Sequence[str] | None, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """One call on the emulator: the named outputs, or all. Raises BackendError: it does not execute."""
        try:
            result: list[NDArray[Any]] = self._inner.run(None if outputs is None else list(outputs), dict(feeds))
        except Exception as error:  # the runtime's own kinds have no common base
            raise BackendError(
                f"Qualcomm's emulator cannot execute the graph: {said(error)[:300]}; report it with calibration.json"
            ) from error
        return result

    def close(self) -> None:
        """Give its memory back; it executes no more."""
        self._inner = None

    @classmethod
    def close_all(cls) -> None:
        for session in cls._open:
            session.close()


atexit.register(Session.close_all)


def provider_options(soc: str) -> dict[str, str]:
    """What the provider is told about a chip. Raises BackendError: an unknown one."""
    if soc not in SOCS:
        raise BackendError(f"chip must be one of {', '.join(SOCS)}, got {soc!r}; change --soc")
    model, arch = SOCS[soc]
    return {
        "backend_path": str(backend_path()),
        "soc_model": str(model),
        "htp_arch": str(arch),
        "offload_graph_io_quantization": "0",
    }


def open_session(
    graph: Path | bytes,
    soc: str,
    say: Say = lambda _line: None,
    *,
    entries: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> Session:
    """Compile a graph for a chip; the session executes it on the emulator.

    Args:
        graph: a file, or the bytes of one. say: is told what the compiler warns of, in one line.
        entries: more of the session's configuration, such as ep.context_enable. options: more of the provider's.
    Raises:
        BackendError: Qualcomm's library is missing or refuses the graph; the text names the nodes where its log does.
    """
    ort, given = runtime(), provider_options(soc) | dict(options or {})
    settings = ort.SessionOptions()
    settings.log_severity_level = WARNINGS
    for key, value in {"session.disable_cpu_ep_fallback": "1", **(entries or {})}.items():
        settings.add_session_config_entry(key, value)
    settings.add_provider_for_devices([device()], given)
    name = graph.name if isinstance(graph, Path) else "the graph"
    with caught() as lines:
        failed: Exception | None = None
        try:
            session = Session(ort.InferenceSession(str(graph) if isinstance(graph, Path) else graph, settings))
        except Exception as error:  # the runtime's own kinds have no common base
            failed = error
        log = lines.log()
    if failed is not None:
        raise BackendError(_refusal(name, soc, failed, log)) from failed
    if log.warnings or log.errors:
        say(f"Qualcomm's compiler on {name} for {soc}: {'; '.join(log.errors + log.warnings)[:300]}")
    return session


def said(error: Exception) -> str:
    """What the runtime says of a failure, in one line, without its own codes."""
    return _CODES.sub("", " ".join(str(error).split()))


def _refusal(name: str, soc: str, error: Exception, log: Log) -> str:
    text = said(error)
    if log.refused:
        more = f" and {len(log.refused) - 3} more" if len(log.refused) > 3 else ""
        why = f"it does not take {', '.join(log.refused[:3])}{more}"
    else:
        why = "; ".join(log.errors) if NOT_HELD in text and log.errors else text
    return f"Qualcomm's compiler refuses {name} for {soc}: {why[:400]}; nothing was exported; report it with calibration.json"
