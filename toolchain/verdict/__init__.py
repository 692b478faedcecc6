"""The judge: fidelity, conformance, limits, doctor."""
