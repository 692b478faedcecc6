"""Targets that tests add to the project: each is one folder, as a target of the project is."""
