"""What needs Qualcomm's library: contexts for a chip, a check of what was compiled, and the emulator."""
