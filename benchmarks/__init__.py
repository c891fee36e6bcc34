"""Measurements: not tests. `python -m benchmarks` prints command, data, n, median and spread, as ratios within one run."""
