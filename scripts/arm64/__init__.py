"""The device programs on an emulated arm64."""
