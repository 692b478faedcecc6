"""What the device does during one iteration: its largest kernels, and how long it waits for the host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.watch import synchronize

LARGEST = 10


class Profile:
    """torch's profiler between ``start`` and ``stop``; of a CPU its operations stand for kernels."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        on_gpu = device.type == "cuda"
        self.kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
        self._profile = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])])
        self.spans: list[tuple[str, int, int]] = []
        """Name, begin and end in nanoseconds of everything that ran."""

    def start(self) -> None:
        synchronize(self.device)
        self._profile.start()

    def stop(self) -> list[dict[str, Any]]:
        """The largest kernels, by their seconds."""
        synchronize(self.device)
        self._profile.stop()
        events = self._profile.profiler.kineto_results.events()  # type: ignore[union-attr]
        self.spans = [
            (e.name(), e.start_ns(), e.start_ns() + e.duration_ns())
            for e in events  # annotations, such as Adam's, span kernels and the gaps between them
            if e.device_type() == self.kind and e.duration_ns() > 0 and not e.is_user_annotation()
        ]
        total = sum(end - begin for _, begin, end in self.spans)
        by_name: defaultdict[str, list[int]] = defaultdict(list)
        for name, begin, end in self.spans:
            by_name[name].append(end - begin)
        order = sorted(by_name.items(), key=lambda entry: -sum(entry[1]))[:LARGEST]
        return [
            {"kernel": name[:120], "calls": len(spans), "seconds": sum(spans) / 1e9, "share": sum(spans) / total}
            for name, spans in order
        ]

    def shares(self) -> dict[str, float]:
        """``idle_share``: of the time from the first kernel's begin to the last one's end. ``kernels``: their number."""
        if not self.spans:
            return {}
        begin, end = min(b for _, b, _ in self.spans), max(e for _, _, e in self.spans)
        busy = covered((b, e) for _, b, e in self.spans)
        return {
            "idle_share": 1 - busy / (end - begin),
            "profiled_seconds": (end - begin) / 1e9,
            "kernels": float(len(self.spans)),
        }


def covered(spans: Iterable[tuple[int, int]]) -> int:
    """The time that is in at least one of the spans, which may overlap."""
    total, reached = 0, 0
    for begin, end in sorted(spans):
        total += max(0, end - max(begin, reached))
        reached = max(reached, end)
    return total
