"""The Python API: what ``import dq_toolchain as dq`` offers. ``dq.calibrate``, ``dq.export``, ``dq.run``, ``dq.validate``.

The command line calls the same functions. Nothing heavy is imported before a function is called.
"""
