"""What is known of one class of diffusers' networks: how it is called, what it must be given, how its latents look."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

Options = Mapping[str, Any]
"""A complete config of a network, or one of a scheduler."""
Keywords = Mapping[str, "Tensor"]
THOUSAND = 1000
"""Timesteps of a sampler in the time that most packed networks count to 1."""


def _nothing(_network: nn.Module) -> None:
    return None


def _none(_config: Options) -> tuple[str, ...]:
    return ()


def _no_fault(_side: Keywords) -> str | None:
    return None


@dataclass(frozen=True)
class Input:
    """One keyword tensor: finite floats, or whole numbers below ``classes``. ``row``: shape of a sample's row, None where free.

    A ``mask`` may also be what tokenizers give, bool or integers 0 and 1: 1 (true) is a token that counts, and becomes 1.0.
    """

    row: tuple[int | None, ...]
    classes: int | None = None
    required: bool = True
    mask: bool = False

    def fault(self, tensor: Tensor) -> str | None:
        """What the tensor (P, *row) should be, None if it is that."""
        shape = ", ".join(["P", *("T" if size is None else str(size) for size in self.row)])
        fits = tensor.dim() == len(self.row) + 1 and tensor.numel() > 0
        fits = fits and all(want in (None, got) for want, got in zip(self.row, tensor.shape[1:], strict=True))
        if self.classes is not None:
            whole = str(tensor.dtype) in ("torch.int32", "torch.int64")
            good = fits and whole and bool(((tensor >= 0) & (tensor < self.classes)).all())
            return None if good else f"integer labels 0-{self.classes - 1} of shape ({shape}), P at least 1"
        if self.mask and not tensor.is_floating_point() and not tensor.is_complex():
            good = fits and bool(((tensor == 0) | (tensor == 1)).all())
        else:
            good = fits and tensor.is_floating_point() and bool(tensor.isfinite().all())
        kinds = ", or bool or integers 0 and 1," if self.mask else ""
        return None if good else f"finite floating-point numbers{kinds} of shape ({shape}), P at least 1"


TEXT_MASK = Input((None,), required=False, mask=True)
"""Which tokens of a text count."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What is special about a network that takes tokens in the place of a latent, and positions beside them.

    The sampler, the artifact and the devices know latents (B, C, H, W) only; they are packed where the network is called.

    Attributes:
        latent: complete config and its file -> channels of the latent.
        side: latent's side of the pipeline, where the config has no ``sample_size``. patch: latents per token, per side.
        call: network, latent (B, C, H, W), timestep (B,), keyword tensors -> the output (B, C, H, W).
        fix: network, latent, keyword tensors -> puts the tables of positions of these sizes in the place of what computes them.
        timesteps: number of steps, tokens, scheduler's config -> what the pipeline gives to ``set_timesteps``.
        ready: changes a network as diffusers builds it into one that ``call`` takes; nothing the second time.
        unit: the sampler's timesteps in one unit of the time that ``call`` is given.
        idle: complete config -> names of modules that nothing of the output depends on. ``ready`` takes them away.
    """

    latent: Callable[[Options, str], int]
    side: int
    patch: int
    call: Callable[[nn.Module, Tensor, Tensor, Keywords], Tensor]
    fix: Callable[[nn.Module, Tensor, Keywords], None]
    timesteps: Callable[[int, int, Options], dict[str, Any]]
    ready: Callable[[nn.Module], None] = _nothing
    unit: int = THOUSAND
    idle: Callable[[Options], tuple[str, ...]] = _none


@dataclass(frozen=True)
class Architecture:
    """One class of diffusers.

    Attributes:
        part: folder of the network in a pipeline.
        inputs: complete config and its file -> keyword tensors by name. Raises ModelError for an option that is not supported.
        added: keywords that diffusers takes inside ``added_cond_kwargs``.
        pooled: how the network calls the second thing that its pipeline's ``encode_prompt`` returns, "" if there is none.
        told: the input that tells it its guidance, "" if there is none.
        packed: of a network that takes tokens.
        fault: all keyword tensors of a side -> what is wrong with them together, None if nothing is.
        scale_name: how its pipeline's call names w of f_u + w (f_c - f_u), where the network is not told its guidance.
        guidance_less: how much less than w that is.
        rescaled: its pipeline rescales what guidance gives, which no sampler here does.
    """

    part: str
    inputs: Callable[[Options, str], dict[str, Input]]
    added: tuple[str, ...] = ()
    pooled: str = ""
    told: str = ""
    packed: Packed | None = None
    fault: Callable[[Keywords], str | None] = _no_fault
    scale_name: str = "guidance_scale"
    guidance_less: float = 0.0
    rescaled: bool = False
