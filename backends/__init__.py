"""Targets: one module or folder each; its name is what `--target` takes."""
