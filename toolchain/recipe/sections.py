"""The recipe: every setting of calibrate, with its default, its bounds and what it means; sections of targets join it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, create_model, field_validator

from dq_toolchain.toolchain.recipe.budget import Budget
from dq_toolchain.toolchain.recipe.given import Scales, Steps, known_width, model_path

Effort = Literal["quick", "standard", "best"]
Precision = Literal["exact", "tf32", "bf16"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Renamed:
    """A setting of earlier versions.

    Attributes:
        to: what it is called now. values: what it is now -> what it was; a flag without a value where that was a bool.
    """

    to: str
    values: Mapping[str, str | bool]


class TargetSection(Section):
    """Settings of one target: a section of the recipe that is named after it, and flags of ``export``, made of the fields.

    A description is the help of the flag and the text of the reference: it says what the value does, not the default.
    """

    EXAMPLE: ClassVar[str] = ""
    """Flags of an example in the help."""
    RENAMED: ClassVar[Mapping[str, Renamed]] = {}
    """Old name -> what became of it."""


class ModelSection(Section):
    """[model]"""

    path: Annotated[Path | None, BeforeValidator(model_path)] = Field(
        default=None,
        strict=False,
        description="diffusers folder (a pipeline, or a bare network), or a hub id owner/name; default: the embedded digits model",
    )
    variant: str | None = Field(default=None, pattern=r"^[\w-]+$", description="of the weight files, such as fp16")
    lora: Path | None = Field(
        default=None, strict=False, description="safetensors file of adapters, added to the weights"
    )
    lora_scale: float = Field(default=1.0, ge=-10, le=10, description="multiplies what the adapters add")
    scheduler: Path | None = Field(
        default=None, strict=False, description="folder with scheduler_config.json, in the place of the model's own"
    )
    vae: Path | None = Field(
        default=None,
        strict=False,
        description="folder of an autoencoder, such as TAESD, or of a pipeline with one: its decoder is exported in place of the "
        "model's own",
    )


class SamplerSection(Section):
    """[sampler]"""

    steps: int = Field(default=20, ge=1, le=1000, description="denoising steps")
    eta: float = Field(default=0.0, ge=0, le=1, description="DDIM's noise share; 0 is deterministic")
    guidance: float = Field(
        default=1.0, ge=0, le=50, description="classifier-free guidance scale; 1 and less is none, as in diffusers"
    )
    clip: bool = Field(
        default=True,
        description="false: without the limits that a scheduler puts on predicted images "
        "(clip_sample, thresholding), which no sampler table holds",
    )


class ConditioningSection(Section):
    """[conditioning]"""

    file: Path | None = Field(
        default=None,
        strict=False,
        description="safetensors with cond.NAME and uncond.NAME, one row per prompt, or one for all; masks may be bool, or "
        "integers 0 and 1. Held-out samples take the rows behind the first [calibrate] samples, where there are more",
    )
    prompts: Path | None = Field(
        default=None, strict=False, description="one prompt per line; default: a built-in list; held-out as with file"
    )
    negative_prompt: str = Field(default="", description="what guidance leads away from")
    null_label: int | None = Field(default=None, ge=0, description='class label that means "no class", for guidance')


class QuantizeSection(Section):
    """[quantize]"""

    weight_bits: int = Field(default=8, ge=2, le=8, description="bits of all weights but the edges")
    budget: str | None = Field(
        default=None,
        description="bits of the weights layer by layer, instead of weight_bits: "
        "size=SHARE of FP32's, psnr>=DB, or both",
    )
    edge_bits: int = Field(
        default=8, ge=2, le=8,
        description="bits of the weights of the first layer that reads the sample, and of the last layer",
    )  # fmt: skip
    activation_bits: Annotated[Literal[2, 3, 4, 5, 6, 7, 8, 16], BeforeValidator(known_width)] = Field(
        default=8,
        description="bits of activations; with 16, which are symmetric, the second operand of attention products has 8",
    )
    scheme: Literal["symmetric", "affine"] = Field(
        default="symmetric",
        description="symmetric: zero_point 0 (every target); affine: any zero_point, a finer scale where values are not centred",
    )
    attention: Literal["float", "int8"] = Field(default="float", description="operands of the attention products")
    outputs: Literal["none", "range", "fitted"] = Field(
        default="none",
        description="what is kept of the outputs of products, for runtimes that quantize those too: range is the smallest and "
        "largest value per step group, by which 16-bit activations have results of 16 bits; fitted quantizes them, with "
        "activation_bits, while fitting and in the simulation",
    )
    split: bool = Field(default=True, description="separate ranges for the halves of a skip concatenation")
    step_groups: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="step groups, each with its own activation parameters; default: one per network call of up to 8, else 5",
    )
    step_vectors: bool = Field(
        default=False,
        description="what depends on the timestep alone comes from a table with one row per step: "
        "no time embedding in integers, none on the device",
    )
    keep_float: tuple[str, ...] = Field(
        default=(), strict=False, description="layers, or modules of layers, that stay in float; * stands for anything"
    )

    @field_validator("scheme")
    @classmethod
    def _is_of_the_bits(cls, scheme: str, info: ValidationInfo) -> str:
        if scheme == "affine" and info.data.get("activation_bits") == 16:
            raise ValueError("activations of 16 bits are symmetric; take symmetric, or 8 bits and fewer")
        return scheme

    @field_validator("budget")
    @classmethod
    def _is_budget(cls, text: str | None) -> str | None:
        if text is not None:
            Budget.parse(text)
        return text


class CalibrateSection(Section):
    """[calibrate]; what is not set follows from effort, bits and method (``effort.TABLE``)."""

    effort: Effort = Field(
        default="standard",
        description="how much work: decides samples, iterations and learning rates here and in [blocks] that are not set",
    )
    method: str = Field(default="accuquant", description="calibration method, or several joined by '+'")
    samples: int = Field(default=64, ge=2, le=100_000, description="FP32 trajectories to measure ranges and fit on")
    batch: int = Field(
        default=16, ge=1, le=1024, description="samples per single-step iteration; multi-step: half of them"
    )
    ranges: Literal["mse", "minmax", "percentile"] = Field(default="mse", description="how ranges start")
    percentile: float = Field(default=99.99, gt=50, le=100, description="share of values kept, for ranges = percentile")
    rounding: Literal["closed-form+learned", "closed-form", "learned", "nearest"] = Field(
        default="closed-form",
        description="of weights: in closed form (GPTQ, on [blocks] rows) and learned from there; in closed form only; learned from "
        "the nearest integers; or to nearest. Default: learned where iterations do so, without --offload",
    )
    warmup: int = Field(default=0, ge=0, description="single-step iterations before the multi-step ones")
    iterations: int = Field(
        default=0, ge=0, description="multi-step iterations on weights and ranges, over all step groups"
    )
    settling: int = Field(
        default=0, ge=0, description="multi-step iterations on weight scales, biases and ranges, integers fixed"
    )
    steps: Literal["uniform", "growth"] = Field(
        default="uniform",
        description="which steps to fit more often: none, or those whose errors grow most until the end",
    )
    horizon: int = Field(default=4, ge=1, le=1000, description="denoising steps simulated per multi-step iteration")
    gradient: Literal["adjoint", "surrogate", "full"] = Field(
        default="adjoint", description="how the multi-step error is differentiated"
    )
    start: Literal["fp32", "inherited"] = Field(default="fp32", description="start latents of a multi-step iteration")
    group_iterations: int = Field(
        default=0, ge=0, description="final iterations on the ranges of each step group in turn"
    )
    scale_lr: float = Field(default=1e-3, gt=0, le=1, description="learning rate of the logarithm of scales")
    rounding_lr: float = Field(default=2e-3, gt=0, le=1, description="learning rate of rounding offsets")


class BlocksSection(Section):
    """[blocks], for methods that reconstruct block after block; rows also for rounding in closed form"""

    rows: int = Field(
        default=128,
        ge=2,
        le=100_000,
        description="network evaluations that blocks are reconstructed on, and weights rounded in closed form",
    )
    batch: int = Field(default=32, ge=1, le=1024, description="of them per iteration")
    iterations: int = Field(default=200, ge=1, description="iterations on the rounding of each block")
    activation_iterations: int = Field(
        default=50, ge=0, description="iterations on the activation scales of each block"
    )


class ReferenceSection(Section):
    """[reference]"""

    seeds: int = Field(default=16, ge=2, le=4096, description="held-out seeds kept for validation")
    more_steps: Steps = Field(
        default=(),
        strict=False,
        description="other step counts that get held-out rollouts, so that export can put them into a bundle",
    )
    more_guidance: Scales = Field(
        default=(),
        strict=False,
        description="other guidance scales that do, with every step count; needs a guidance above 1",
    )


class ExportSection(Section):
    """[export]"""

    target: str | None = Field(
        default=None,
        description="what `dq-toolchain targets` lists; default: the one marked there. `calibrate` then sets of [quantize] what is "
        "not set as the target is best calibrated",
    )
    steps: Steps = Field(
        default=(),
        strict=False,
        description="step counts that a device can choose from, beside the calibrated one, of those in [reference] more_steps",
    )
    guidance: Scales = Field(
        default=(), strict=False, description="the same of guidance scales, of those in [reference] more_guidance"
    )
    unet_only: bool = Field(default=False, description="leave text encoders and decoder out of the bundle")
    image_to_image: bool = Field(
        default=False, description="put the encoder of pictures into the bundle, so that a run can begin with a picture"
    )


class RunSection(Section):
    """[run]"""

    out: Path = Field(default=Path("dq-out"), strict=False, description="output folder")
    seed: int = Field(default=0, ge=0, le=2**12 - 2, description="seed of the calibration samples")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where to calibrate")
    precision: Precision = Field(
        default="exact",
        description="what FP32 rollouts, ranges and validation are computed in; exact is float32. "
        "Gradients, the integer simulation and held-out samples are always exact",
    )
    offload: bool = Field(
        default=False,
        description="for networks that do not fit: rounding in closed form (or, with rounding = learned, block after block with "
        "caches on disk), then scales, ranges and biases over steps; without a GPU, weights in files of the output folder",
    )
    parallel_steps: int = Field(
        default=1,
        ge=1,
        description="sampler steps that FP32 rollouts compute at once (ParaDiGMS, latents within a relative 1e-4), for few "
        "samples on a GPU; 1: one after the other",
    )


class Recipe(Section):
    """All settings but those of targets, see ``with_targets``. Frozen; equal recipes give equal artifacts on the same machine."""

    model: ModelSection = ModelSection()
    sampler: SamplerSection = SamplerSection()
    conditioning: ConditioningSection = ConditioningSection()
    quantize: QuantizeSection = QuantizeSection()
    calibrate: CalibrateSection = CalibrateSection()
    blocks: BlocksSection = BlocksSection()
    reference: ReferenceSection = ReferenceSection()
    export: ExportSection = ExportSection()
    run: RunSection = RunSection()


def with_targets(sections: Mapping[str, type[TargetSection]]) -> type[Recipe]:
    """The recipe with the sections of targets, by name, behind its own."""
    assert not set(sections) & set(Recipe.model_fields), "a target is called like a section of the recipe"
    fields: dict[str, Any] = {name: (section, section()) for name, section in sections.items()}
    return create_model("Recipe", __base__=Recipe, **fields) if fields else Recipe
