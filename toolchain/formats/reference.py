"""The held-out seeds: FP32 and simulated rollouts that every device is compared with (docs/FORMATS.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dq_toolchain.toolchain.disk.files import read_tensors, write_tensors
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.sampler.conditioning import Conditioning

if TYPE_CHECKING:
    from torch import Tensor

FILE = "reference.safetensors"
OTHERS = "reference-*.safetensors"
"""Of other step counts and guidance scales (``Sampling.file``)."""


def references_in(folder: Path) -> tuple[str, ...]:
    """Names of the reference files of other samplers in a folder, for whoever writes the folder anew."""
    return tuple(sorted(path.name for path in folder.glob(OTHERS) if path.is_file()))


@dataclass(frozen=True, kw_only=True)
class Reference:
    """S seeds, N network calls; latents (N+1, S, C, H, W), outputs (N, S, C, H, W), float32; samples of other axes likewise.

    Attributes:
        start: (S, C, H, W) start latents.
        conditioning: keyword tensors, first axis S.
        step_noise: (N, S, C, H, W) or None.
        fp32_latents, simulation_latents: own rollout of each; index 0 is ``start``.
        simulation_outputs: network outputs after guidance along the simulation's rollout.
        fp32_outputs_at_simulation: what the FP32 network answers at those same latents.
        program_latents: like ``simulation_latents``, of the simulation that also quantizes what only the program does (results of
            layers, where the artifact has no parameters for them). None: it quantizes nothing more.
    """

    start: Tensor
    conditioning: Conditioning
    step_noise: Tensor | None
    fp32_latents: Tensor
    simulation_latents: Tensor
    simulation_outputs: Tensor
    fp32_outputs_at_simulation: Tensor
    program_latents: Tensor | None = None

    @property
    def expected_latents(self) -> Tensor:
        """The rollout that a correct device has, as far as rounding flips let it."""
        return self.simulation_latents if self.program_latents is None else self.program_latents

    @property
    def seeds(self) -> int:
        return len(self.start)

    @property
    def calls(self) -> int:
        return len(self.simulation_outputs)

    def save(self, path: Path) -> None:
        """Write reference.safetensors. Raises ToolchainError."""
        tensors = {
            "start": self.start,
            "fp32_latents": self.fp32_latents,
            "simulation_latents": self.simulation_latents,
            "simulation_outputs": self.simulation_outputs,
            "fp32_outputs_at_simulation": self.fp32_outputs_at_simulation,
        }
        tensors |= {f"cond.{name}": value for name, value in self.conditioning.cond.items()}
        tensors |= {f"uncond.{name}": value for name, value in self.conditioning.uncond.items()}
        tensors |= {name: value for name, value in self._optional() if value is not None}
        write_tensors(path, tensors)

    @classmethod
    def load(cls, path: Path, remedy: str) -> Reference:
        """Read reference.safetensors and check that its shapes belong together. Raises ArtifactError."""
        tensors = read_tensors(path, remedy)
        parts: dict[str, dict[str, Tensor]] = {"cond": {}, "uncond": {}}
        for name in [n for n in tensors if n.startswith(("cond.", "uncond."))]:
            side, _, keyword = name.partition(".")
            parts[side][keyword] = tensors.pop(name)
        step_noise = tensors.pop("step_noise", None)
        try:
            reference = cls(conditioning=Conditioning(parts["cond"], parts["uncond"]), step_noise=step_noise, **tensors)
        except TypeError as error:
            raise ArtifactError(
                f"{path} does not hold the tensors of a reference file ({str(error)[:300]}); {remedy}"
            ) from error
        reference._check(path, remedy)
        return reference

    def _optional(self) -> tuple[tuple[str, Tensor | None], ...]:
        return ("step_noise", self.step_noise), ("program_latents", self.program_latents)

    def _check(self, path: Path, remedy: str) -> None:
        if self.start.dim() < 3 or not len(self.start) or self.simulation_outputs.dim() != self.start.dim() + 1:
            raise ArtifactError(
                f"{path}: start must be (S, C, ...) and simulation_outputs (N, S, C, ...), got "
                f"{tuple(self.start.shape)} and {tuple(self.simulation_outputs.shape)}; {remedy}"
            )
        shape, calls = tuple(self.start.shape), self.calls
        expected = {
            "start": shape,
            "fp32_latents": (calls + 1, *shape),
            "simulation_latents": (calls + 1, *shape),
            "simulation_outputs": (calls, *shape),
            "fp32_outputs_at_simulation": (calls, *shape),
        }
        optional = {"step_noise": (calls, *shape), "program_latents": (calls + 1, *shape)}
        expected |= {name: optional[name] for name, value in self._optional() if value is not None}
        for name, want in expected.items():
            got = tuple(getattr(self, name).shape)
            if got != want or str(getattr(self, name).dtype) != "torch.float32":
                raise ArtifactError(
                    f"{path}: {name} has shape {got}, {getattr(self, name).dtype}, expected {want}, torch.float32; "
                    f"{remedy}"
                )
        cond, uncond = self.conditioning.cond, self.conditioning.uncond
        if uncond and set(cond) != set(uncond):
            raise ArtifactError(
                f"{path}: cond has {sorted(cond)}, uncond {sorted(uncond)}, they must agree"[:600] + f"; {remedy}"
            )
        for name, value in (*cond.items(), *uncond.items()):
            if value.shape[:1] != shape[:1] or str(value.dtype) not in ("torch.float32", "torch.int64"):
                raise ArtifactError(
                    f"{path}: conditioning {name[:100]!r} is {value.dtype} of shape {tuple(value.shape)}, expected "
                    f"is float32 or int64 of {shape[0]} rows, one per seed; {remedy}"
                )
