"""The rows of the quality tables are calibrations as ``calibrate`` makes them."""

import pytest
from benchmarks.common import Overrides
from benchmarks.quality import rows

SMALL: Overrides = {
    "quantize": {"step_groups": 2, "weight_bits": 4},
    "sampler": {"steps": 2, "guidance": 1.0},
    "calibrate": {"samples": 4, "batch": 4, "warmup": 4},
    "blocks": {"rows": 4},
    "reference": {"seeds": 2},
}


def test_the_default_row_is_fitted_and_the_other_is_not() -> None:
    ranges, default = rows(SMALL, ["ranges only", "default"], 2, guidance=1.0)
    assert (ranges["method"], default["method"], default["guidance"]) == ("ranges only", "default", 1.0)
    assert default["psnr"] > ranges["psnr"]


def test_a_row_that_does_not_exist_is_no_calibration() -> None:
    with pytest.raises(KeyError, match="single-step"):
        list(rows(SMALL, ["single-step"], 2))
