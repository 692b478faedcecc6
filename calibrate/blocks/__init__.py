"""Block reconstruction: what Q-Diffusion, TFMQ-DM, EDA-DM and gradient-aligned calibration share."""
