"""Each figure against its definition, picture by picture."""

from __future__ import annotations

import math

import torch

from dq_toolchain.toolchain.metrics import psnr, relative_error, rollout_error, ssim, to_unit


def pictures(count: int = 3, side: int = 28, channels: int = 1) -> torch.Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8


def test_psnr_of_a_constant_offset_follows_its_definition() -> None:
    x = pictures()
    expected = torch.full((3,), -20 * math.log10(0.1 / 2), dtype=torch.float64)  # [-1, 1] to [0, 1] halves the offset
    torch.testing.assert_close(psnr(x + 0.1, x), expected, rtol=0, atol=1e-4)


def test_psnr_of_equal_pictures_is_capped_and_nan_stays_nan() -> None:
    x = pictures()
    assert psnr(x, x).tolist() == [100.0] * 3
    broken = x.clone()
    broken[1, 0, 0, 0] = math.nan
    assert psnr(broken, x).isnan().tolist() == [False, True, False]


def test_what_lies_outside_the_pixel_range_does_not_count() -> None:
    x = torch.ones(2, 1, 8, 8)
    assert psnr(x + 0.7, x).tolist() == [100.0] * 2


def test_each_picture_is_measured_alone() -> None:
    x = pictures()
    noisy = x.clone()
    noisy[2] += 0.2
    assert psnr(noisy, x)[:2].tolist() == [100.0] * 2
    assert ssim(noisy, x)[:2].min() > 0.9999
    assert ssim(noisy, x)[2] < 0.999


def test_ssim_works_on_small_pictures_and_falls_with_noise() -> None:
    for side in (8, 28):
        x = pictures(side=side)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        values = [float(ssim((x + s * noise), x).mean()) for s in (0.0, 0.05, 0.3)]
        assert math.isclose(values[0], 1.0, abs_tol=1e-5)
        assert values[0] > values[1] > values[2]


def test_latents_of_an_autoencoder_take_their_range_from_the_reference() -> None:
    x = pictures(channels=4) * 5
    unit = to_unit(x, x)
    assert unit.amin((1, 2, 3)).tolist() == [0.0] * 3
    assert unit.amax((1, 2, 3)).tolist() == [1.0] * 3
    assert psnr(x * 1.1, x).max() < 60


def test_relative_error_is_the_ratio_of_norms() -> None:
    x = pictures()
    quarter = torch.full((3,), 0.25, dtype=torch.float64)
    torch.testing.assert_close(relative_error(1.25 * x, x), quarter, rtol=1e-6, atol=0)
    rolled = rollout_error(torch.stack([x, 1.5 * x, x]), torch.stack([x, x, x]))
    torch.testing.assert_close(rolled, torch.tensor([[0.5] * 3, [0.0] * 3], dtype=torch.float64), rtol=1e-6, atol=1e-12)


def test_ssim_is_torchmetrics_bit_by_bit() -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    for side, sigma, channels in ((8, 0.5, 1), (28, 1.5, 3)):
        x = pictures(side=side, channels=channels)
        noisy = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        wanted = structural_similarity_index_measure(
            to_unit(noisy, x), to_unit(x, x), sigma=sigma, data_range=1.0, reduction="none"
        )
        assert isinstance(wanted, torch.Tensor)
        assert ssim(noisy, x).tolist() == wanted.to(torch.float64).tolist()
