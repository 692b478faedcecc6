"""The official code is refused where it is not, and what is put around it is transparent: proved with a stand-in for it.

The stand-in has the names that the adapter uses; its reconstruction changes nothing, and writes down what it was asked for.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from benchmarks.qdiff_checkout import PARTS, load_checkout
from benchmarks.qdiff_run import OWN_NORM, OWN_SCALE_RATE, Quantizers, Run, given_by, reconstructed
from torch import Tensor

from benchmarks import official_qdiffusion
from dq_toolchain.calibrate.blocks.evaluations import Evaluations, evaluations_of
from dq_toolchain.calibrate.blocks.units import find_units
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.toolchain.models.architectures import call_network
from tests.calibrate.conftest import Measured, measured, tiny_recipe
from tests.tiny import write_tiny_model

STAND_IN = {
    "quant_layer": """
import torch
from torch import nn
import torch.nn.functional as F

class UniformAffineQuantizer(nn.Module):
    def __init__(self, n_bits, symmetric=False, channel_wise=False, scale_method="max", leaf_param=False):
        super().__init__()
        self.n_levels, self.delta, self.zero_point, self.inited = 2 ** n_bits, None, None, False
    def bitwidth_refactor(self, bits):
        self.n_levels = 2 ** bits
    def forward(self, x):
        if not self.inited:
            self.delta, self.zero_point, self.inited = 2 * x.abs().max() / (self.n_levels - 1), self.n_levels // 2, True
        q = (torch.round(x / self.delta) + self.zero_point).clamp(0, self.n_levels - 1)
        return (q - self.zero_point) * self.delta

class QuantModule(nn.Module):
    def __init__(self, layer, weights, activations):
        super().__init__()
        self.layer, self.weight, self.split, self.state = [layer], layer.weight, 0, (False, False)
        self.weight_quantizer = UniformAffineQuantizer(**weights)
        self.act_quantizer = UniformAffineQuantizer(**activations)
    def set_split(self):
        self.was_split = True
    def forward(self, x):
        layer = self.layer[0]
        weight = self.weight_quantizer(self.weight) if self.state[0] else self.weight
        x = self.act_quantizer(x) if self.state[1] else x
        if isinstance(layer, nn.Linear):
            return F.linear(x, weight, layer.bias)
        return F.conv2d(x, weight, layer.bias, layer.stride, layer.padding)
""",
    "quant_block": """
from torch import nn
from einops import rearrange
from ldm.modules.attention import BasicTransformerBlock
from ddim.models.diffusion import ResnetBlock
from qdiff.quant_layer import QuantModule, UniformAffineQuantizer

class BaseQuantBlock(nn.Module):
    def __init__(self, activations):
        super().__init__()
        self.use_act_quant = False
        self.act_quantizer = UniformAffineQuantizer(**activations)

def get_specials(*_):
    return {ResnetBlock: BaseQuantBlock}
""",
    "quant_model": """
from torch import nn
from qdiff.quant_block import BaseQuantBlock, get_specials
from qdiff.quant_layer import QuantModule

class QuantModel(nn.Module):
    def __init__(self, model, weight_quant_params, act_quant_params):
        super().__init__()
        self.model, specials = model, get_specials(True)
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, (nn.Conv2d, nn.Linear)):
                    setattr(module, name, QuantModule(child, weight_quant_params, act_quant_params))
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if type(child) in specials:
                    setattr(module, name, specials[type(child)](child, act_quant_params))
    def set_quant_state(self, weights, activations):
        for module in self.modules():
            if isinstance(module, QuantModule):
                module.state = (weights, activations)
            elif isinstance(module, BaseQuantBlock):
                module.use_act_quant = activations
    def forward(self, x, timesteps, context=None):
        return self.model(x, timesteps, context)
""",
    "utils": "from tqdm import trange",
    "adaptive_rounding": "",
    "layer_recon": """
import torch
calls = []
def layer_reconstruction(net, unit, **settings):
    moved = torch.zeros(1).to("cuda")
    rate = torch.optim.Adam([torch.nn.Parameter(moved)]).defaults["lr"]
    calls.append((next(name for name, module in net.named_modules() if module is unit), settings, rate))
""",
    "block_recon": "from qdiff.layer_recon import layer_reconstruction as block_reconstruction",
}
RUN = Run(quantizers=None, iterations=5, activation_iterations=3, batch=4, lr=0.25)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    model = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    return measured(model, tmp_path_factory.mktemp("made"), quantize={"weight_bits": 4, "step_groups": 1})


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, ModuleType]:
    (tmp_path / "qdiff").mkdir()
    for name, text in {"__init__": "", **STAND_IN}.items():
        (tmp_path / "qdiff" / f"{name}.py").write_text(text)
    return load_checkout(tmp_path)


def ours(ready: Measured) -> QuantizedNetwork:
    return quantize_with(ready.context, ready.scale, ready.zero_point, ready.recipe)


def rows_in(ready: Measured) -> Evaluations:
    context = ready.context
    return evaluations_of(
        context.table, ready.trajectories.targets, context.samples, 1.0, torch.tensor([0, 1, 3]), torch.arange(3)
    )


def made(parts: dict[str, ModuleType], ready: Measured, run: Run, network: QuantizedNetwork) -> torch.nn.Module:
    context = ready.context
    return reconstructed(
        parts, context.network, rows_in(ready), run, names=list(network.layers), edges=context.prepared.edges, splits={},
        given=given_by(network), seed=0, device=context.device,
    )  # fmt: skip


@torch.no_grad()
def output(network: torch.nn.Module, rows: Evaluations) -> Tensor:
    return call_network(network, rows.sample, rows.timestep, rows.keywords)


def test_a_folder_without_it_is_refused(tmp_path: Path) -> None:
    arguments = official_qdiffusion.parser().parse_args(["--checkout", str(tmp_path)])
    with pytest.raises(
        SystemExit, match=r"has no qdiff/quant_model\.py; get the code with `git clone https://github\.com"
    ):
        official_qdiffusion.main(arguments)


def test_nothing_of_it_stays_importable(parts: dict[str, ModuleType]) -> None:
    assert set(parts) == set(PARTS)
    assert not [name for name in sys.modules if name.partition(".")[0] in ("qdiff", "ldm", "ddim")]
    assert parts["quant_block"].BasicTransformerBlock is not parts["quant_block"].ResnetBlock


def test_with_our_quantizers_it_computes_what_our_network_does(parts: dict[str, ModuleType], ready: Measured) -> None:
    rows, network = rows_in(ready), ours(ready)
    found = output(made(parts, ready, RUN, network), rows)
    torch.testing.assert_close(found, output(network, rows), rtol=1e-4, atol=1e-5)
    assert (found - output(ready.context.network, rows)).norm() > 1e-3 * found.norm()


def test_units_are_ours_and_settings_are_theirs(parts: dict[str, ModuleType], ready: Measured) -> None:
    network, rows = ours(ready), rows_in(ready)
    made(parts, ready, RUN, network)
    calls = parts["layer_recon"].calls
    wanted = [unit.name for unit in find_units(network.inner, lambda fp32: output(fp32, rows))]
    names = [name.removeprefix("model.network.") for name, _, _ in calls]
    assert names == [*wanted, *wanted]
    for _, settings, rate in calls[: len(wanted)]:
        assert (settings["iters"], settings["batch_size"], settings["asym"], rate) == (5, 4, True, 0.25)
    for _, settings, rate in calls[len(wanted) :]:
        assert (settings["iters"], settings["lr"], settings["p"], rate) == (3, OWN_SCALE_RATE, OWN_NORM, 1e-3)


def test_their_own_quantizers_take_attention_splits_and_edges(
    parts: dict[str, ModuleType], ready: Measured, tmp_path: Path
) -> None:
    context = setup(tiny_recipe(ready.context.model.folder, tmp_path, quantize={"split": False, "weight_bits": 4}))
    own = Quantizers("max", "max", symmetric=True, weight_bits=4, edge_bits=8)
    names = [site.layer for site in context.prepared.sites]
    network: Any = reconstructed(
        parts, context.network, rows_in(ready), replace(RUN, quantizers=own), names=names, edges=context.prepared.edges,
        splits=ready.context.prepared.splits, given=given_by(ours(ready)), seed=0, device=context.device,
    )  # fmt: skip
    layers = {name: m for name, m in network.named_modules() if isinstance(m, parts["quant_layer"].QuantModule)}
    levels = {name.removeprefix("network.model.network."): m.weight_quantizer.n_levels for name, m in layers.items()}
    assert {name for name, count in levels.items() if count != 2**4} == {"conv_in", "conv_out"}
    assert levels["conv_in"] == 2**8
    assert sum(hasattr(m, "was_split") for m in layers.values()) == len(ready.context.prepared.splits) > 0
    attentions = [m for m in network.modules() if hasattr(m, "act_quantizer_w")]
    assert attentions
    assert all(getattr(m, f"act_quantizer_{name}").inited for m in attentions for name in "qkvw")


def test_their_weights_go_with_our_activations(parts: dict[str, ModuleType], ready: Measured) -> None:
    own = Quantizers("mse", "mse", symmetric=False, weight_bits=4)
    run, network = replace(RUN, quantizers=own, own_weights_only=True), ours(ready)
    found: Any = made(parts, ready, run, network)
    layers = [m for m in found.modules() if isinstance(m, parts["quant_layer"].QuantModule)]
    assert {m.weight_quantizer.n_levels for m in layers} == {2**4}
    scales = [float(scale) for scale, *_ in given_by(network).activations.values()]
    assert sorted(m.act_quantizer.delta.item() for m in layers) == sorted(scales)
    assert not any(hasattr(m, "act_quantizer_w") for m in found.modules())


def test_rows_are_named_or_refused(parts: dict[str, ModuleType]) -> None:
    arguments = official_qdiffusion.parser().parse_args(["--checkout", "x", "--only", "theirs"])
    with pytest.raises(
        SystemExit, match="--only: got 'theirs', allowed are 'ours', 'ours, affine activations', 'theirs, our"
    ):
        list(official_qdiffusion.measure(arguments, parts, ()))
