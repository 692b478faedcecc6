"""From a path or a hub id to an FP32 network: sources, configs, weights, LoRA, decoders."""
