"""ExecuTorch (XNNPACK): lowering, audit and execution. The folder name is the target name."""
