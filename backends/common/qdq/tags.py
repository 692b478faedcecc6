"""Placeholder scales: each site's own fp16 number, by which its operations are found in the converted program."""

from __future__ import annotations

import numpy as np

FIRST_TAG = 0x2800
"""Bits of the fp16 number 2^-5; tags are this and the fp16 numbers after it, 21,503 of them below infinity."""


def tag(site: int) -> float:
    """The placeholder scale of a site: an fp16 number that no other site has."""
    return float(np.array(FIRST_TAG + site, np.uint16).view(np.float16))


def site_of_tag(scale: float) -> int:
    """The inverse of ``tag``; negative or too large for a number that is none."""
    return int(np.array(scale, np.float16).view(np.uint16)) - FIRST_TAG
