"""The golden vectors and damaged bundles of runtime_samples."""
