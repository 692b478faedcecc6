"""`dq-toolchain compare`: several calibration methods through the same quantizers, sites, steps and seeds, one table."""
