"""AccuQuant's multi-step objective: gradients through the sampler, stages, the fit."""
