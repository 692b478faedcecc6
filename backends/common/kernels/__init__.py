"""Operations in torch, for what executes a saved program on the host; each target maps its own operations onto them."""
