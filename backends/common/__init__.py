"""What the targets share: the call, its schedule, sampling on the host, sealing a bundle."""
