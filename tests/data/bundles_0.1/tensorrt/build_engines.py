#!/usr/bin/env python3
"""Build one TensorRT engine per graph of this bundle, on the device that will run it, and check that it is INT8.

    python3 build_engines.py                 build what is missing, then check
    python3 build_engines.py --check         check only: reads engines/*.layers.json, needs no TensorRT

TensorRT 10.3 (JetPack 6) builds bundles of precision fp32, 10.12 and later those of precision fp16. Engines are good for
the GPU and the TensorRT version they were built with. Exit code 1: a layer that must be INT8 is not.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import tensorrt as trt

PLACEMENTS, ENGINES, CACHE = "placements.json", "engines", "timing.cache"
MULTIPLIES = re.compile("conv|correlation|gemm|matmul|mha|fusion", re.IGNORECASE)
"""In the kind or name of a layer that multiplies."""


class Judgement(NamedTuple):
    """Sites by how the builder runs them; ``unseen``: inside a block of which this TensorRT shows nothing."""

    int8: list[str]
    in_float: list[str]
    unseen: list[str]


def judge(layers: Iterable[Any], sites: Iterable[str]) -> Judgement:
    """Which sites run in INT8, by the builder's own list of layers.

    A layer says in "Metadata" which nodes of the graph it was made of; nodes bear the names of sites.
    """
    found = Judgement([], [], [])
    known = [layer for layer in layers if isinstance(layer, dict)]
    for site in sites:
        tag = f"[ONNX Layer: {site}]"
        mine = [layer for layer in known if tag in str(layer.get("Metadata", ""))]
        products = [layer for layer in mine if MULTIPLIES.search(f"{layer.get('LayerType', '')} {layer.get('Name', '')}")]
        if any(_is_int8(layer) for layer in products):
            found.int8.append(site)
        elif any(layer.get("Inputs") for layer in products):
            found.in_float.append(site)
        else:
            found.unseen.append(site)
    return found


def _is_int8(layer: Mapping[str, Any]) -> bool:
    """Whether the layer multiplies int8: its first input is, and it is no fusion, which dequantizes inside."""
    if "fusion" in str(layer.get("LayerType", "")):
        return False
    inputs = layer.get("Inputs") or [{}]
    return "int8" in str(inputs[0].get("Format/Datatype", inputs[0].get("Datatype", ""))).lower()


class Builder:
    """NVIDIA's builder with the settings that this bundle needs."""

    def __init__(self, precision: str, cache: Path, level: int, workspace_mib: int, fp16: bool = True) -> None:
        # only here: --check and judge() need no TensorRT
        module = os.environ.get("TENSORRT_MODULE", "tensorrt")
        globals()["trt"] = importlib.import_module(module)
        self.strong, self.cache, self.level, self.workspace_mib = precision == "fp16", cache, level, workspace_mib
        self.fp16 = fp16  # False: the network has values that fp16 does not hold
        version = tuple(int(part) for part in str(trt.__version__).split(".")[:2])
        if module == "tensorrt" and not self.strong and version >= (11, 0):
            raise SystemExit(f"TensorRT {trt.__version__} takes precision fp16 only; export with --precision fp16")
        if module == "tensorrt" and self.strong and version < (10, 12):
            raise SystemExit(f"TensorRT {trt.__version__} needs precision fp32; export with --precision fp32")
        self.logger = trt.Logger(trt.Logger.WARNING)

    def build(self, graph: Path) -> bytes:
        """The engine of a graph; weights are looked up beside it."""
        builder = trt.Builder(self.logger)
        flags = trt.NetworkDefinitionCreationFlag
        network = builder.create_network(1 << int(flags.STRONGLY_TYPED) if self.strong else 0)
        parser = trt.OnnxParser(network, self.logger)
        if not parser.parse_from_file(str(graph.resolve())):
            errors = [parser.get_error(i) for i in range(parser.num_errors)]
            text = "; ".join(f"{error.node_name()}: {error.desc()}" for error in errors)
            raise SystemExit(f"{graph.name}: {text}")
        config = self._config(builder)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise SystemExit(f"{graph.name}: the builder failed, see its messages above")
        self._save_cache(config)
        return to_bytes(plan)

    def _config(self, builder: trt.Builder) -> trt.IBuilderConfig:
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.builder_optimization_level = self.level
        if self.workspace_mib:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self.workspace_mib << 20)
        if not self.strong:
            config.set_flag(trt.BuilderFlag.INT8)
            if self.fp16:
                config.set_flag(trt.BuilderFlag.FP16)
        # the graphs of step groups differ in scales only: what was timed for one serves the next
        cache = config.create_timing_cache(self.cache.read_bytes() if self.cache.exists() else b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
        return config

    def _save_cache(self, config: trt.IBuilderConfig) -> None:
        cache = config.get_timing_cache()
        if cache is not None:
            write(self.cache, to_bytes(cache.serialize()))

    def layers(self, plan: bytes) -> str:
        """The builder's list of layers, JSON."""
        runtime = trt.Runtime(self.logger)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise SystemExit("the engine that was just built does not load: is there a GPU, and the driver that belongs to this "
                             "TensorRT?")
        return str(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def to_bytes(memory: Any) -> bytes:
    """A copy of what TensorRT holds; its memory has the buffer protocol."""
    return bytes(memory)


def write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)


def check(folder: Path, names: Iterable[str], sites: list[str]) -> bool:
    """Print how every engine runs its sites; False if one runs in float or was not listed."""
    good = True
    for name in names:
        path = folder / f"{name}.layers.json"
        if not path.exists():
            print(f"{name}: no list of layers, build it first")
            good = False
            continue
        found = judge(json.loads(path.read_text()).get("Layers", []), sites)
        print(f"{name}: {len(found.int8)} of {len(sites)} sites INT8, {len(found.in_float)} in float, {len(found.unseen)} inside "
              "blocks that are not shown")
        for site in found.in_float:
            print(f"  in float: {site}")
        for site in found.unseen:
            print(f"  not shown: {site}")
        good = good and not found.in_float
    return good


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--check", action="store_true", help="build nothing")
    parser.add_argument("--force", action="store_true", help="build again what is there")
    parser.add_argument("--level", type=int, default=4, help="builder optimization level, 0-5  [default: 4]")
    parser.add_argument("--workspace-mib", type=int, default=0, help="scratch memory the builder may use  [default: its own]")
    given = parser.parse_args(arguments)
    bundle: Path = given.bundle
    placements = json.loads((bundle / PLACEMENTS).read_text())
    graphs = [bundle / name for name in placements["graphs"]]
    engines = bundle / ENGINES
    engines.mkdir(exist_ok=True)
    if not given.check:
        builder = Builder(placements["precision"], engines / CACHE, given.level, given.workspace_mib,
                          placements.get("fp16", True))
        for number, graph in enumerate(graphs, 1):
            plan = engines / (graph.stem + ".plan")
            if plan.exists() and plan.with_suffix(".layers.json").exists() and not given.force:
                print(f"{plan.name} is there")
                continue
            start = time.monotonic()
            print(f"building {plan.name} ({number} of {len(graphs)})", flush=True)
            data = builder.build(graph)
            write(plan, data)
            write(plan.with_suffix(".layers.json"), builder.layers(data).encode())
            print(f"{plan.name}: {len(data) / 1e6:.1f} MB in {time.monotonic() - start:.0f} s")
    return 0 if check(engines, [graph.stem for graph in graphs], placements["int8"]) else 1


if __name__ == "__main__":
    sys.exit(main())
