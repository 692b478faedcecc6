"""From a recipe to everything a calibration needs, its memory and its identity."""
