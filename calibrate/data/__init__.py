"""What a calibration runs on: prompts, conditioning, samples, FP32 rollouts."""
