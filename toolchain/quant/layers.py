"""Layers with weights that become integers: convolutions of one or two dimensions, also transposed, and Linear.

Weights are held output channel first, whatever the layer: axis 0 is what has a scale each. torch holds those of a transposed
convolution input channel first, so ``output_first`` puts a layer in its place that turns them when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from dq_toolchain.toolchain.quant.site import LayerKind

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d)
NO_INTEGER_FORM = "name it in keep_float"


class OutputFirst(nn.Module):
    """A ConvTranspose1d or ConvTranspose2d whose ``weight`` is (out, in / groups, *kernel) instead of torch's
    (in, out / groups, *kernel). The function is the same."""

    def __init__(self, layer: nn.ConvTranspose1d | nn.ConvTranspose2d) -> None:
        super().__init__()
        self.rank = len(layer.kernel_size)
        self.stride, self.dilation = layer.stride, layer.dilation
        self.padding = tuple(int(side) for side in layer.padding)  # only other convolutions take names of paddings
        self.output_padding, self.groups, self.padding_mode = layer.output_padding, layer.groups, layer.padding_mode
        self.in_channels, self.out_channels, self.kernel_size = layer.in_channels, layer.out_channels, layer.kernel_size
        self.weight = nn.Parameter(to_output_first(layer.weight.detach(), layer.groups), requires_grad=False)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach(), requires_grad=False)

    def forward(self, x: Tensor, output_size: object = None) -> Tensor:
        """(B, in, *size) -> (B, out, *size). Raises ValueError: ``output_size`` is given, which integer layers do not take."""
        if output_size is not None:
            raise ValueError("output_size of a transposed convolution has no integer form; set output_padding instead")
        return operation_of(self)(x, self.weight, self.bias)


Layer = nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.Linear | OutputFirst
LAYERS = (nn.Conv1d, nn.Conv2d, *TRANSPOSED, nn.Linear, OutputFirst)
Operation = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def to_output_first(weight: Tensor, groups: int) -> Tensor:
    """(in, out / groups, *kernel) -> (out, in / groups, *kernel)."""
    inputs, outputs, *kernel = weight.shape
    parts = weight.reshape(groups, inputs // groups, outputs, *kernel).transpose(1, 2)
    return parts.reshape(groups * outputs, inputs // groups, *kernel)


def to_input_first(weight: Tensor, groups: int) -> Tensor:
    """(out, in / groups, *kernel) -> (in, out / groups, *kernel): what ``to_output_first`` undoes."""
    return to_output_first(weight, groups)


def output_first(network: nn.Module, names: Collection[str]) -> None:
    """Put ``OutputFirst`` in the place of those of the named layers that are transposed convolutions, in place; the float
    function is unchanged."""
    for name, module in list(network.named_modules()):
        if name in names and isinstance(module, TRANSPOSED):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, OutputFirst(module))


def kind_of(layer: Layer) -> LayerKind:
    if isinstance(layer, nn.Linear):
        return "linear"
    if isinstance(layer, (*TRANSPOSED, OutputFirst)):
        return "conv_transpose1d" if layer.weight.dim() == 3 else "conv_transpose2d"
    return "conv1d" if isinstance(layer, nn.Conv1d) else "conv2d"


def channel_shape(layer: Layer) -> tuple[int, ...]:
    """The shape in which one number per output channel stands against the layer's output: (-1,), (-1, 1) or (-1, 1, 1)."""
    return (-1, *[1] * (layer.weight.dim() - 2))


def fault_of(layer: Layer) -> str | None:
    """Why a layer has no integer form, None if it has one."""
    if "weight" not in dict(layer.named_parameters(recurse=False)):
        return "computes its weight (a parametrization such as weight_norm); remove the parametrization first"
    if not isinstance(layer, nn.Linear) and layer.padding_mode != "zeros":
        return f"has padding_mode {layer.padding_mode!r}, which has no integer form; {NO_INTEGER_FORM}"
    return None


def operation_of(layer: Layer) -> Operation:
    """(x, weight, bias) -> the layer's product, with its stride, padding, dilation and channel groups.

    The weight is output channel first: (out, in / groups, *kernel).
    Raises:
        ValueError: padding other than with zeros, or torch's own transposed convolution (see ``output_first``).
    """
    if isinstance(layer, nn.Linear):
        return F.linear
    if isinstance(layer, TRANSPOSED):
        raise ValueError(f"{type(layer).__name__} holds its weight input channel first; call output_first before")
    if layer.padding_mode != "zeros":
        raise ValueError(f"padding_mode {layer.padding_mode!r} has no integer form")
    stride, padding, dilation, groups = layer.stride, layer.padding, layer.dilation, layer.groups
    if isinstance(layer, OutputFirst):
        assert not isinstance(padding, str)  # torch has no named padding here
        more = layer.output_padding
        if layer.rank == 1:
            return lambda x, w, b: F.conv_transpose1d(
                x, to_input_first(w, groups), b, stride, padding, more, groups, dilation
            )
        return lambda x, w, b: F.conv_transpose2d(
            x, to_input_first(w, groups), b, stride, padding, more, groups, dilation
        )
    if isinstance(layer, nn.Conv1d):
        return lambda x, w, b: F.conv1d(x, w, b, stride, padding, dilation, groups)
    return lambda x, w, b: F.conv2d(x, w, b, stride, padding, dilation, groups)


def float_parameters(network: nn.Module, layers: Iterable[str]) -> dict[str, Tensor]:
    """Everything in the state dict except the weights of these quantized layers."""
    quantized = {f"{name}.weight" for name in layers}
    return {name: tensor for name, tensor in network.state_dict().items() if name not in quantized}
