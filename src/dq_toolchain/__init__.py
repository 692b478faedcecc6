"""Diffusion models in integers: calibrate, export to a device runtime, validate the pictures."""

__version__ = "0.1.0"
