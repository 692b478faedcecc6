"""Files and folders: one reading layer, staged writes, the lock of an output folder."""
