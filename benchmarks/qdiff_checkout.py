"""Q-Diffusion's own code (https://github.com/Xiuyu-Li/q-diffusion), imported from a checkout and put on a diffusers network.

What reconstructs is theirs, unchanged: quantizers, AdaRound, losses, caches and loops. From here come the blocks that their
code has only for two other families of networks, the order of execution, and a device in the place of their "cuda".
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from dq_toolchain.toolchain.quant.attention import PRODUCT_OPERANDS, ProductAttnProcessor

HOW = "git clone https://github.com/Xiuyu-Li/q-diffusion"
PARTS = ("quant_layer", "quant_block", "quant_model", "adaptive_rounding", "block_recon", "layer_recon", "utils")
ABSENT = (
    "einops",
    "ldm",
    "ldm.modules",
    "ldm.modules.attention",
    "ldm.modules.diffusionmodules",
    "ldm.modules.diffusionmodules.openaimodel",
    "ddim",
    "ddim.models",
    "ddim.models.diffusion",
)
"""What they import for blocks of other networks than those of diffusers. Nothing of it is run."""
OPERANDS = {"q": "q", "k": "k", "v": "v", "probs": "w"}
"""Our name of an operand -> the end of their name, ``act_quantizer_w``, which their code looks for."""


class _Absent(ModuleType):
    """Whatever is taken from it is an empty module class of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (nn.Module,), {})


def load_checkout(folder: Path) -> dict[str, ModuleType]:
    """The modules ``PARTS`` of their package by name. Nothing of it stays importable.

    Raises:
        SystemExit: the folder is no checkout of it.
    """
    if not (folder / "qdiff" / "quant_model.py").is_file():
        raise SystemExit(
            f"--checkout: {folder} has no qdiff/quant_model.py; get the code with `{HOW}` and name its folder"
        )
    found = {name: module for name, module in sys.modules.items() if name in ABSENT}
    sys.modules.update({name: _Absent(name) for name in ABSENT})
    sys.path.insert(0, str(folder))
    try:
        return {part: importlib.import_module(f"qdiff.{part}") for part in PARTS}
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name in ABSENT or name.partition(".")[0] == "qdiff"]:
            del sys.modules[name]
        sys.modules.update(found)


@contextmanager
def patched(
    parts: Mapping[str, ModuleType], specials: Mapping[type[nn.Module], Any], device: torch.device
) -> Iterator[None]:
    """Inside, their code replaces the blocks in ``specials``, computes on ``device``, and prints no progress."""
    move = torch.Tensor.to

    def to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return (
            move(tensor, device, *args[1:], **kwargs) if args and args[0] == "cuda" else move(tensor, *args, **kwargs)
        )

    with (
        patch.object(torch.Tensor, "to", to),
        patch.object(parts["quant_model"], "get_specials", lambda *_: specials),
        patch.object(parts["utils"], "trange", range),
        patch.object(parts["block_recon"], "print", lambda *_: None, create=True),
    ):
        yield


@contextmanager
def rounding_rate(rate: float) -> Iterator[None]:
    """Inside, Adam has this learning rate where none is asked for, as their code does for the rounding (it means 1e-3)."""
    adam = torch.optim.Adam
    with patch.object(torch.optim, "Adam", lambda parameters, lr=rate: adam(parameters, lr=lr)):
        yield


def specials_of(parts: Mapping[str, ModuleType], quantize_attention: bool) -> dict[type[nn.Module], Any]:
    """Diffusers' blocks -> what stands in their places, units of reconstruction as ``QuantResnetBlock`` and ``QuantAttnBlock``.

    Args:
        quantize_attention: both operands of the attention products, as theirs does; else the products stay in float.
    """
    base: Any = parts["quant_block"].BaseQuantBlock
    quantizer: Any = parts["quant_layer"].UniformAffineQuantizer

    class ResBlock(base):  # type: ignore[misc]
        """The block's layers are quantized already when this is made."""

        def __init__(self, block: nn.Module, act_quant_params: dict[str, Any]) -> None:
            super().__init__(act_quant_params)
            self.block = block

        def forward(self, x: Tensor, temb: Tensor) -> Any:
            return self.block(x, temb)

    class AttnBlock(base):  # type: ignore[misc]
        def __init__(self, attention: nn.Module, act_quant_params: dict[str, Any]) -> None:
            super().__init__(act_quant_params)
            self.attention = attention
            if quantize_attention:
                for name in OPERANDS.values():
                    setattr(self, f"act_quantizer_{name}", quantizer(**act_quant_params))
            self.processor = ProductAttnProcessor(self.product)

        def product(self, _attention: Attention, which: str, left: Tensor, right: Tensor) -> Tensor:
            if quantize_attention and self.use_act_quant:
                first, second = (getattr(self, f"act_quantizer_{OPERANDS[o]}") for o in PRODUCT_OPERANDS[which])
                left, right = first(left), second(right)
            return torch.bmm(left, right)

        def forward(self, x: Tensor, **_unused: Any) -> Tensor:
            return self.processor(self.attention, x)

    return {ResnetBlock2D: ResBlock, Attention: AttnBlock}
