"""Finds the sites of a network and puts trainable quantizers there, by module type and by running the network once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.network.call_order import first_and_last_layer
from dq_toolchain.calibrate.network.fake_quant import (
    QUANTIZED_ATTENTION,
    ActivationQuantizer,
    QuantizedLayer,
    WeightQuantizer,
    clamp_offsets,
)
from dq_toolchain.calibrate.network.sharing import with_shared_tensors
from dq_toolchain.calibrate.network.streaming import Streaming
from dq_toolchain.toolchain.errors import ModelError, RecipeError
from dq_toolchain.toolchain.models.architectures import call_network, unit_of_time
from dq_toolchain.toolchain.quant.attention import ATTENTION_OPERANDS, check_products
from dq_toolchain.toolchain.quant.layers import fault_of, kind_of, output_first
from dq_toolchain.toolchain.quant.qparams import activation_type, weight_type
from dq_toolchain.toolchain.quant.site import Site, operand_bits, results_of
from dq_toolchain.toolchain.quant.sites import attention_layers, layers_to_keep, weighted_layers
from dq_toolchain.toolchain.quant.smoothing import smooth_inputs
from dq_toolchain.toolchain.quant.split import find_concat_inputs, split_concat_inputs
from dq_toolchain.toolchain.quant.step_vectors import StepVectors, find_step_vectors
from dq_toolchain.toolchain.recipe.sections import QuantizeSection
from dq_toolchain.toolchain.simulation.network import StepGroupSwitch

if TYPE_CHECKING:
    from dq_toolchain.calibrate.network.graphs import Graphs


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An FP32 UNet ready to be observed: splits and smoothing applied, sites known, also what stays in float.

    Attributes:
        float_layers: layers that stay in float because the recipe names them.
        edges: the first layer that reads the sample and the last one, whose weights get bits of their own.
        step_vectors: what the network takes from a table; None: it computes from the timestep.
        time_parameters: those that the network does without, by their names in the model.
    """

    network: nn.Module
    splits: Mapping[str, tuple[int, ...]]
    sites: tuple[Site, ...]
    smoothed: tuple[str, ...] = ()
    float_layers: tuple[str, ...] = ()
    edges: frozenset[str] = frozenset()
    step_vectors: StepVectors | None = None
    time_parameters: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def has_results(self) -> bool:
        """Whether results of products are sites too."""
        return any(site.is_result for site in self.sites)


def prepare(
    network: nn.Module,
    settings: QuantizeSection,
    run: Callable[[nn.Module], Any],
    divisors: Mapping[str, Tensor] | None = None,
    timesteps: Sequence[float] = (),
) -> Prepared:
    """Split concatenation convolutions, smooth others and list the sites. The network passed in keeps its modules, and shares
    its tensors with the one returned.

    Args:
        run: calls the network once on a representative input.
        divisors: of input channels, by convolution (``smoothing``).
        timesteps: of all samplers, for step vectors.
    Raises:
        RecipeError: ``keep_float`` names a layer that the network does not have, or leaves none to quantize.
        ModelError: a layer has no integer form, or is never called; the text names it.
    """
    network = with_shared_tensors(network).eval().requires_grad_(False)
    splits = find_concat_inputs(network, lambda: run(network)) if settings.split else {}
    split_concat_inputs(network, splits)
    smooth_inputs(network, divisors or {})
    vectors, time_parameters = (
        find_step_vectors(network, timesteps, run, unit_of_time(network)) if settings.step_vectors else (None, {})
    )
    float_layers = layers_to_keep(network, settings.keep_float)
    for name, layer in weighted_layers(network):
        fault = None if name in float_layers else fault_of(layer)
        if fault is not None:
            raise ModelError(f"{name} {fault}")
    output_first(network, {name for name, _ in weighted_layers(network) if name not in float_layers})
    edges = first_and_last_layer(network, float_layers, run)
    sites = [
        Site(
            name,
            "input",
            kind_of(layer),
            settings.activation_bits,
            settings.scheme,
            settings.edge_bits if name in edges else settings.weight_bits,
        )
        for name, layer in weighted_layers(network)
        if name not in float_layers
    ]
    if not sites:
        raise RecipeError("[quantize] keep_float names every layer of this network; leave some to be quantized")
    if settings.attention == "int8":
        check_products(network)
        sites += [
            Site(name, operand, "attention", operand_bits(operand, settings.activation_bits), settings.scheme)
            for name, _ in attention_layers(network)
            for operand in ATTENTION_OPERANDS
        ]
    if settings.outputs == "fitted":
        sites += results_of(sites)
    return Prepared(
        network=network,
        splits=splits,
        sites=tuple(sites),
        smoothed=tuple(divisors or ()),
        float_layers=float_layers,
        edges=frozenset(edges),
        step_vectors=vectors,
        time_parameters=time_parameters,
    )


class QuantizedNetwork(nn.Module):
    """A network whose sites are fake-quantized and trainable; call it like the diffusers UNet it was made from."""

    def __init__(
        self,
        prepared: Prepared,
        scale: Tensor,
        zero_point: Tensor,
        weight_scales: Mapping[str, Tensor],
        group_of_step: tuple[int, ...],
        *,
        learned_rounding: bool,
        low_memory: bool = False,
    ) -> None:
        """
        Args:
            scale: (G, L) float32. zero_point: (G, L) int32. Columns as ``prepared.sites``.
            weight_scales: layer -> (out,) float32.
            low_memory: dequantize each layer's weight in every pass: all of them at once do not fit into memory.
        """
        super().__init__()
        self.low_memory = low_memory
        self.streaming: Streaming | None = None
        """What brings the weights of its blocks, if they are not on the device."""
        self.inner = with_shared_tensors(prepared.network)
        self.sites, self.group_of_step, self.switch = prepared.sites, group_of_step, StepGroupSwitch()
        self.graphs: Graphs | None = None
        """What replays passes from recordings; None runs each as it is."""
        self.activations: dict[str, ActivationQuantizer] = {}
        self.layers: dict[str, QuantizedLayer] = {}
        layers = dict(weighted_layers(self.inner))
        for column, site in enumerate(self.sites):
            quantizer = ActivationQuantizer(
                scale[:, column], zero_point[:, column], activation_type(site.bits), self.switch
            )
            self.activations[site.name] = quantizer
            if site.operand == "output":
                self.layers[site.layer].output = quantizer
                continue
            if site.kind == "attention":
                self.inner.get_submodule(site.layer).add_module(f"quantizer_{site.operand}", quantizer)
                continue
            layer = layers[site.layer]
            assert site.weight_bits is not None
            weight = WeightQuantizer(
                layer.weight, weight_scales[site.layer], weight_type(site.weight_bits), learned_rounding
            )
            self.layers[site.layer] = QuantizedLayer(layer, quantizer, weight)
            self.inner.set_submodule(site.layer, self.layers[site.layer])
        if any(site.kind == "attention" for site in self.sites):
            for _, attention in attention_layers(self.inner):
                attention.set_processor(QUANTIZED_ATTENTION)

    @property
    def device(self) -> torch.device:
        """Where it computes, and where what is learned lies."""
        return next(iter(self.activations.values())).log_scale.device

    def set_step(self, k: int) -> None:
        """Switch to the step group of network call k."""
        self.switch.current = self.group_of_step[k]

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = False, **keywords: Tensor) -> tuple[Tensor]:
        """Keywords flat, as ``call_network`` takes them; always a tuple."""
        run = self.plain if self.graphs is None else self.graphs
        return (run(sample, timestep, keywords),)

    def plain(self, sample: Tensor, timestep: Tensor, keywords: Mapping[str, Tensor]) -> Tensor:
        """A pass that is not replayed."""
        return call_network(self.inner, sample, timestep, keywords)

    @contextmanager
    def frozen_weights(self) -> Iterator[None]:
        """Weights stay as they are in all passes inside; neither they nor biases get a gradient.

        For rollouts and range fitting.
        """
        parameters = self.weight_parameters().values()
        for parameter in parameters:
            parameter.requires_grad_(False)
        with nullcontext() if self.graphs is None else self.graphs.frozen_weights():
            if self.graphs is None:
                self.keep_weights(self.layers)
            try:
                yield
            finally:
                self._release()
                for parameter in parameters:
                    parameter.requires_grad_(True)

    @torch.no_grad()
    def keep_weights(self, layers: Iterable[str]) -> None:
        """These layers compute with the weights that their quantizers give now, dequantized once unless ``low_memory``."""
        for name in layers:
            layer = self.layers[name]
            layer.fix_weight(None if self.low_memory else layer.weight_quantizer(), rounded=True)
            if self.streaming is not None:
                self.streaming.chose(layer.weight_quantizer)

    def stream(self, streaming: Streaming) -> None:
        """From now on the weights of its blocks are on the host between passes; no more of them than two blocks on the device.

        Raises:
            CalibrationError: host memory cannot be pinned.
        """
        streaming.attach(self)
        self.streaming = streaming
        for layer in self.layers.values():
            layer.keeps_integers = False

    def bring(self, name: str) -> None:
        """Weights of a module inside are on the device until the next pass: to be called before they are read outside of one."""
        if self.streaming is not None:
            self.streaming.bring(self.inner.get_submodule(name))

    @contextmanager
    def weights_once(self) -> Iterator[None]:
        """Weights are fake-quantized once for all passes inside; their gradients are summed and sent on at the end.

        The same gradient as quantizing in every pass, at the cost of one: a segment of n steps makes 2n passes. A low-memory
        network quantizes in every pass.
        """
        if self.low_memory:
            yield
            return
        if self.graphs is not None:
            with self.graphs.weights_once():
                yield
            return
        weights = [layer.weight_quantizer() for layer in self.layers.values()]
        leaves = [weight.detach().requires_grad_() for weight in weights]
        for layer, weight in zip(self.layers.values(), leaves, strict=True):
            layer.fix_weight(weight, rounded=True)
        try:
            yield
        finally:
            self._release()
        reached = [(weight, leaf.grad) for weight, leaf in zip(weights, leaves, strict=True) if leaf.grad is not None]
        torch.autograd.backward([weight for weight, _ in reached], [gradient for _, gradient in reached])

    def _release(self) -> None:
        for layer in self.layers.values():
            layer.fix_weight(None, rounded=False)

    def scale_parameters(self) -> dict[str, nn.Parameter]:
        """Activation log-scales by site."""
        return {f"{name}.log_scale": q.log_scale for name, q in self.activations.items()}

    def weight_parameters(self) -> dict[str, nn.Parameter]:
        """Weight log-scales, rounding offsets and biases by layer."""
        found = {}
        for name, layer in self.layers.items():
            found[f"{name}.weight.log_scale"] = layer.weight_quantizer.log_scale
            if layer.weight_quantizer.offset is not None:
                found[f"{name}.weight.offset"] = layer.weight_quantizer.offset
            if layer.bias is not None:
                found[f"{name}.bias"] = layer.bias
        return found

    def biases(self) -> dict[str, Tensor]:
        """Learned biases under their names in the network's state dict."""
        return {f"{name}.bias": layer.bias.detach() for name, layer in self.layers.items() if layer.bias is not None}

    def clamp_offsets(self) -> None:
        clamp_offsets(layer.weight_quantizer for layer in self.layers.values())
