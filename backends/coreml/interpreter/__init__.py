"""A reference interpreter of ML Programs; `program.load` is where to start."""
