#!/usr/bin/env python3
"""Build one TensorRT engine per graph of this bundle, on the device that will run it, and check that it is INT8.

The graphs are those of the network, and of the text encoders and the decoder where the bundle has them.

    python3 build_engines.py                 build what is missing or was made of other files, then check
    python3 build_engines.py --check         check only: reads engines/*.layers.json, needs no TensorRT

The TensorRT found on the device decides how types are given to the builder (`types_for`): JetPack 6 has TensorRT 10.3, 7.1
has 10.13, 7.2 has 10.16, 7.2.2 and later have 11.4. Engines are good for the GPU and the TensorRT version they were built
with. Exit codes: 0 every layer that must be INT8 is; 1 one is not; 2 the engines cannot be built, one line says why; 3 not
decided: none is seen in float, but the builder does not show them all, or an engine is not built.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import tensorrt as trt

if TYPE_CHECKING or __package__:
    from dq_toolchain.backends.tensorrt.deploy.graph_types import Types, trtexec_flags, types_for
    from dq_toolchain.backends.tensorrt.deploy.int8_layers import judge
    from dq_toolchain.backends.tensorrt.deploy.made_of import SUFFIX, first_changed, is_made_of, listed_files, made_of
else:  # in a bundle's folder, which is to hold nothing that bundle.json does not list
    sys.dont_write_bytecode = True
    from graph_types import Types, trtexec_flags, types_for
    from int8_layers import judge
    from made_of import SUFFIX, first_changed, is_made_of, listed_files, made_of

PLACEMENTS, ENGINES, CACHE, LAYERS = "placements.json", "engines", "timing.cache", ".layers.json"
UNDECIDED = 3
"""The exit code where the builder's list of layers does not show every site, or there is no engine."""


class Graph(NamedTuple):
    """A graph of the bundle. ``precision`` and ``fp16``: see ``types_for``. ``int8``: sites that have to be INT8.
    ``made_of``: what its engine has to be made of, see the function."""

    path: Path
    precision: str
    fp16: bool
    int8: list[str]
    made_of: str

    def is_built(self, engines: Path) -> bool:
        """Whether there is an engine with its list of layers, made of the files of this bundle."""
        plan = engines / f"{self.path.stem}.plan"
        return plan.exists() and plan.with_suffix(LAYERS).exists() and is_made_of(plan, self.made_of)


def graphs_of(bundle: Path) -> list[Graph]:
    """The graphs of the step groups, then those of text encoders and decoder.

    Raises:
        SystemExit: placements.json or bundle.json is missing or damaged.
    """
    try:
        files = listed_files(bundle)
        placements = json.loads((bundle / PLACEMENTS).read_text(encoding="utf-8"))
        rows = [{**placements, "graph": name} for name in placements["graphs"]] + placements.get("parts", [])
        return [
            Graph(path, row["precision"], row.get("fp16", True), list(row["int8"]), made_of(path.stem, files))
            for row in rows
            for path in (bundle / row["graph"],)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SystemExit(
            f"{PLACEMENTS} or bundle.json in {bundle} is missing or damaged: {one_line(error)}; copy the whole bundle again"
        ) from error


class Builder:
    """NVIDIA's builder with the settings that this bundle needs."""

    def __init__(self, cache: Path, level: int, workspace_mib: int) -> None:
        # only here: --check and judge() need no TensorRT
        try:
            globals()["trt"] = importlib.import_module("tensorrt")
        except ImportError as error:
            raise SystemExit(
                f"this Python does not import tensorrt ({one_line(error)}); take the system's python3, with TensorRT of JetPack"
            ) from error
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


def one_line(error: Exception) -> str:
    """The kind and the text of an error."""
    return f"{type(error).__name__} {' '.join(str(error).split())}"


def check(engines: Path, graphs: Iterable[Graph]) -> int:
    """Print how every engine runs its sites; the exit code: 1 if one runs in float, 3 if one was not listed or not built.

    Raises:
        SystemExit: a list of layers is damaged.
    """
    in_float = undecided = 0
    for graph in graphs:
        name, sites = graph.path.stem, graph.int8
        if not graph.is_built(engines):
            print(f"{name}: no engine of this bundle's files, build it first")
            undecided += 1
            continue
        path = engines / f"{name}{LAYERS}"
        try:
            found = judge(json.loads(path.read_text(encoding="utf-8")).get("Layers", []), sites)
        except (ValueError, TypeError, AttributeError) as error:
            raise SystemExit(f"{path} is damaged: {one_line(error)}; build it again with --force") from error
        print(
            f"{name}: {len(found.int8)} of {len(sites)} sites INT8, {len(found.in_float)} in float, {len(found.unseen)} inside "
            "blocks that are not shown"
        )
        for site in found.in_float:
            print(f"  in float: {site}")
        for site in found.unseen:
            print(f"  not shown: {site}")
        in_float, undecided = in_float + len(found.in_float), undecided + len(found.unseen)
    return 1 if in_float else UNDECIDED if undecided else 0


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
    parser.add_argument(
        "--made-of", action="store_true", help="print what the engine of --graph has to be made of; build nothing"
    )
    parser.add_argument("--graph", help="of these two: for which file  [default: the first of the network]")
    given = parser.parse_args(arguments)
    bundle: Path = given.bundle
    graphs = graphs_of(bundle)
    if given.trtexec_flags is not None or given.made_of:
        wanted = graphs[0].path if given.graph is None else bundle / given.graph
        asked = next((each for each in graphs if each.path == wanted), None)
        if asked is None:
            raise SystemExit(f"{given.graph} is none of the graphs of {PLACEMENTS}; delete it, it is of another bundle")
        if given.made_of:
            print(asked.made_of, end="")
        else:
            print(*trtexec_flags(given.trtexec_flags, asked.precision, asked.fp16))
        return 0
    engines = bundle / ENGINES
    engines.mkdir(exist_ok=True)
    if not given.check:
        builder = Builder(engines / CACHE, given.level, given.workspace_mib)
        types = [builder.types(graph) for graph in graphs]  # all of them before the first is built
        for number, graph in enumerate(graphs, 1):
            plan = engines / f"{graph.path.stem}.plan"
            if graph.is_built(engines) and not given.force:
                print(f"{plan.name} is there")
                continue
            changed = first_changed(bundle, graph.made_of)
            if changed is not None:
                raise SystemExit(
                    f"{bundle / changed} is not the file that bundle.json lists; copy the whole bundle again"
                )
            start = time.monotonic()
            print(f"building {plan.name} ({number} of {len(graphs)})", flush=True)
            data = builder.build(graph.path, types[number - 1])
            plan.with_suffix(SUFFIX).unlink(missing_ok=True)  # of the engine that goes; the new one comes last
            write(plan, data)
            write(plan.with_suffix(LAYERS), builder.layers(data).encode())
            write(plan.with_suffix(SUFFIX), graph.made_of.encode())
            print(f"{plan.name}: {len(data) / 1e6:.1f} MB in {time.monotonic() - start:.0f} s")
    return check(engines, graphs)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SystemExit as error:
        if not isinstance(error.code, str):
            raise
        print(error.code, file=sys.stderr)
    except OSError as error:
        print(f"{one_line(error)}; make room, or allow this user to write there", file=sys.stderr)
    except Exception as error:  # exit code 1 says that a layer is in float, and nothing else
        print(f"the engines cannot be built: {one_line(error)}", file=sys.stderr)
    sys.exit(2)
