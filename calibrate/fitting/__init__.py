"""The fit of a network: phases that run one after the other. A method names its phases; each says itself what it needs."""

VALIDATION_SHARE = 8
"""One calibration sample in eight only validates iterates; it is never fitted (nor is any held-out sample)."""
