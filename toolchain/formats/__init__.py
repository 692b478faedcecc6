"""Artifact, bundle, report and reference on disk, with their schemas."""
