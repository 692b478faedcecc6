#!/usr/bin/env python3
"""Build one TensorRT engine per graph of this bundle, on the device that will run it, and check that it is INT8.

The graphs are those of the network, and of the text encoders and the decoder where the bundle has them.

    python3 build_engines.py                 build what is missing, then check
    python3 build_engines.py --check         check only: reads engines/*.layers.json, needs no TensorRT

The TensorRT found on the device decides how types are given to the builder (`types_for`): JetPack 6 has TensorRT 10.3, 7.1
has 10.13, 7.2 has 10.16, 7.2.2 and later have 11.4. Engines are good for the GPU and the TensorRT version they were built
with. Exit code 1: a layer that must be INT8 is not; 2: this TensorRT cannot build the bundle, one line says why.
"""

from __future__ import annotations

import argparse
import importlib
import json
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


Version = tuple[int, int]
"""Major and minor, as of TensorRT 10.3."""
OLDEST: Version = (10, 0)
STRONG_FP16: Version = (10, 12)
"""From here on weak types are deprecated, and graphs that hold fp16 and Q/DQ are built with strong ones."""
STRONG_ONLY: Version = (11, 0)
"""From here on every network is strongly typed, and the flags of weak types are gone."""


class Types(NamedTuple):
    """How a builder gets the types of a graph.

    ``strong``: every tensor has the type that the graph says. Otherwise ``flags`` names what the builder may compute in
    beside fp32. ``note``: what the user should know, or "".
    """

    strong: bool
    flags: tuple[str, ...] = ()
    note: str = ""


def types_for(version: Version, precision: str, fp16: bool = True) -> Types:
    """The types that a version of TensorRT takes for the graphs of a bundle.

    Args:
        precision: "fp32" or "fp16", of the graphs between the integer layers.
        fp16: False where the network has values that fp16 does not hold.
    Raises:
        SystemExit: this version cannot build such graphs; the text says what to export instead.
    """
    name = f"TensorRT {version[0]}.{version[1]}"
    if version < OLDEST:
        raise SystemExit(f"{name} does not take these graphs (ONNX opset 19); use JetPack 6.1 or later")
    if precision == "fp16":
        if version < STRONG_FP16:
            raise SystemExit(f"{name} takes fp32 graphs, those of this bundle are fp16; export again with --jetpack 6")
        return Types(strong=True)
    if version < STRONG_ONLY:
        return Types(strong=False, flags=("INT8", "FP16") if fp16 else ("INT8",))
    faster = "; for fp16 export again with --jetpack 7" if fp16 else ""
    return Types(strong=True, note=f"{name} keeps the types of the graph: what is not INT8 runs in fp32{faster}")


def trtexec_flags(number: int, precision: str, fp16: bool = True) -> list[str]:
    """What trtexec is told of the types. ``number``: of its banner "[TensorRT v101303]", 10000 major + 100 minor + patch, which
    before version 10 were 1000 major + 100 minor + patch.

    Raises:
        SystemExit: see ``types_for``.
    """
    version = (number // 10000, number // 100 % 100) if number >= 10000 else (number // 1000, number // 100 % 10)
    types = types_for(version, precision, fp16)
    if types.note:
        print(types.note, file=sys.stderr)
    if types.strong:
        return ["--stronglyTyped"] if version < STRONG_ONLY else []  # later it is always so, and the flag is deprecated
    return [f"--{flag.lower()}" for flag in types.flags]


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
        products = [
            layer for layer in mine if MULTIPLIES.search(f"{layer.get('LayerType', '')} {layer.get('Name', '')}")
        ]
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


class Graph(NamedTuple):
    """A graph of the bundle. ``precision`` and ``fp16``: see ``types_for``. ``int8``: sites that have to be INT8."""

    path: Path
    precision: str
    fp16: bool
    int8: list[str]


def graphs_of(bundle: Path) -> list[Graph]:
    """The graphs of the step groups, then those of text encoders and decoder."""
    placements = json.loads((bundle / PLACEMENTS).read_text())
    rows = [{**placements, "graph": name} for name in placements["graphs"]] + placements.get("parts", [])
    return [Graph(bundle / row["graph"], row["precision"], row.get("fp16", True), row["int8"]) for row in rows]


class Builder:
    """NVIDIA's builder with the settings that this bundle needs."""

    def __init__(self, cache: Path, level: int, workspace_mib: int) -> None:
        # only here: --check and judge() need no TensorRT
        globals()["trt"] = importlib.import_module("tensorrt")
        self.cache, self.level, self.workspace_mib = cache, level, workspace_mib
        major, minor = str(trt.__version__).split(".")[:2]
        self.version = int(major), int(minor)
        self.said: set[str] = set()
        self.logger = trt.Logger(trt.Logger.WARNING)

    def types(self, graph: Graph) -> Types:
        """How the types of a graph are given; a note is said once. Raises SystemExit: see ``types_for``."""
        types = types_for(self.version, graph.precision, graph.fp16)
        if types.note and types.note not in self.said:
            print(types.note)
            self.said.add(types.note)
        return types

    def build(self, graph: Path, types: Types) -> bytes:
        """The engine of a graph; weights are looked up beside it."""
        builder = trt.Builder(self.logger)
        flags = trt.NetworkDefinitionCreationFlag
        network = builder.create_network(1 << int(flags.STRONGLY_TYPED) if types.strong else 0)
        parser = trt.OnnxParser(network, self.logger)
        if not parser.parse_from_file(str(graph.resolve())):
            errors = [parser.get_error(i) for i in range(parser.num_errors)]
            text = "; ".join(f"{error.node_name()}: {error.desc()}" for error in errors)
            raise SystemExit(f"{graph.name}: {text}")
        config = self._config(builder, types)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise SystemExit(f"{graph.name}: the builder failed, see its messages above")
        self._save_cache(config)
        return to_bytes(plan)

    def _config(self, builder: trt.Builder, types: Types) -> trt.IBuilderConfig:
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.builder_optimization_level = self.level
        if self.workspace_mib:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self.workspace_mib << 20)
        for flag in types.flags:
            config.set_flag(getattr(trt.BuilderFlag, flag))  # by name: TensorRT 11 has none of them
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
            raise SystemExit(
                "the engine that was just built does not load: is there a GPU, and the driver that belongs to this "
                "TensorRT?"
            )
        return str(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def to_bytes(memory: Any) -> bytes:
    """A copy of what TensorRT holds; its memory has the buffer protocol."""
    return bytes(memory)


def write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)


def check(folder: Path, graphs: Iterable[Graph]) -> bool:
    """Print how every engine runs its sites; False if one runs in float or was not listed."""
    good = True
    for graph in graphs:
        name, sites = graph.path.stem, graph.int8
        path = folder / f"{name}.layers.json"
        if not path.exists():
            print(f"{name}: no list of layers, build it first")
            good = False
            continue
        found = judge(json.loads(path.read_text()).get("Layers", []), sites)
        print(
            f"{name}: {len(found.int8)} of {len(sites)} sites INT8, {len(found.in_float)} in float, {len(found.unseen)} inside "
            "blocks that are not shown"
        )
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
    parser.add_argument(
        "--workspace-mib", type=int, default=0, help="scratch memory the builder may use  [default: its own]"
    )
    parser.add_argument(
        "--trtexec-flags", type=int, metavar="VERSION", help="print what trtexec is told of types; build nothing"
    )
    parser.add_argument("--graph", help="of --trtexec-flags: for which file  [default: the first of the network]")
    given = parser.parse_args(arguments)
    bundle: Path = given.bundle
    graphs = graphs_of(bundle)
    if given.trtexec_flags is not None:
        wanted = graphs[0].path if given.graph is None else bundle / given.graph
        graph = next(each for each in graphs if each.path == wanted)
        print(*trtexec_flags(given.trtexec_flags, graph.precision, graph.fp16))
        return 0
    engines = bundle / ENGINES
    engines.mkdir(exist_ok=True)
    if not given.check:
        builder = Builder(engines / CACHE, given.level, given.workspace_mib)
        types = [builder.types(graph) for graph in graphs]  # all of them before the first is built
        for number, graph in enumerate(graphs, 1):
            plan = engines / (graph.path.stem + ".plan")
            if plan.exists() and plan.with_suffix(".layers.json").exists() and not given.force:
                print(f"{plan.name} is there")
                continue
            start = time.monotonic()
            print(f"building {plan.name} ({number} of {len(graphs)})", flush=True)
            data = builder.build(graph.path, types[number - 1])
            write(plan, data)
            write(plan.with_suffix(".layers.json"), builder.layers(data).encode())
            print(f"{plan.name}: {len(data) / 1e6:.1f} MB in {time.monotonic() - start:.0f} s")
    return 0 if check(engines, graphs) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SystemExit as error:
        if not isinstance(error.code, str):
            raise
        print(error.code, file=sys.stderr)
        sys.exit(2)
