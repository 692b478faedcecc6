"""How many float32 values a phase of a fit holds per weight."""

from __future__ import annotations

LEARNED = 12.0
"""A fit that learns all rounding at once: the FP32 weight; the offset, its gradient, Adam's two moments, average and best;
the dequantized weight and its gradient; and copies while the average is validated."""
NEAREST = 3.0
"""The same without offsets."""
BROUGHT_NEAR = 1.0
"""More where learning begins at integers that were found in closed form: a copy of the weight, near them."""
ROUNDED = 3.0
"""Rounding in closed form: the FP32 weight, its offset, and the copy."""
BLOCKS = 2.5
"""Block reconstruction: the FP32 and the dequantized weight, and integers twice, chosen and packed."""
OFFLOADED = 1.5
"""With ``offload``: the FP32 weight, and integers twice, chosen and packed."""
FINISHED = 1.5
"""At the end, on the host: the FP32 weight, and integers twice, in the artifact and packed for the simulation."""
SPILLED = 0.25
"""Less, with ``offload`` on the host: the integers that were chosen, or the artifact's, are in files."""
HOMES = 1.25
"""With ``offload`` on a GPU, on the host: the FP32 weight, and the integer that was chosen."""
RESIDENT = 2
"""Then on the GPU: blocks, one at work and one on its way."""
AT_WORK = 3.0
"""And for each weight of the block that is at work: what is rounded, the dequantized weight, and its gradient."""
UNIT, LARGEST = 10, 3
"""Per weight of the unit that is being reconstructed, which has about three times the weights of the largest layer."""
