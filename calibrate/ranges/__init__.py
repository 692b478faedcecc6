"""Activation ranges: observed, measured, turned into qparams."""
