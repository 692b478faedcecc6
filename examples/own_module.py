"""A denoiser of one's own, in integers: calibrated, exported for TensorRT, executed by ONNX Runtime on this machine, judged.

python examples/own_module.py
"""

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

import dq_toolchain as dq


class Denoiser(nn.Module):
    """Two-channel rows of 32 numbers; any module with this forward will do. Conditioned on four numbers a sample."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.down = nn.Conv1d(2, width, 4, stride=2, padding=1)
        self.told = nn.Linear(1 + 4, width)
        self.up = nn.ConvTranspose1d(width, 2, 4, stride=2, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor, words: Tensor) -> Tensor:
        told = self.told(torch.cat([timestep[:, None] / 1000, words], dim=1))
        return self.up(torch.tanh(self.down(sample) + told[:, :, None]))


torch.manual_seed(0)
denoiser = Denoiser()  # yours: trained
scheduler = DDIMScheduler(clip_sample=False)
bank = {"words": torch.randn(8, 4)}  # what samples are conditioned on, in turn
options = {"steps": 5, "samples": 16, "warmup": 20, "settling": 5}  # quick; leave these out for a good fit

calibration = dq.calibrate(denoiser, scheduler=scheduler, sample_shape=(2, 32), conditioning=bank, **options)
bundle = dq.export(calibration, "tensorrt")
verdict = dq.validate(dq.run(bundle))
print(f"{bundle.folder}: {verdict.outcome}, {len(calibration.artifact.sites)} layers in integers")
