"""From an FP32 diffusers UNet to a calibration artifact."""
