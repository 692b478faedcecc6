"""The sampler as a table of coefficients, and the rollout that follows it."""
