"""The compiled tables, windows and sketches that detectors are built from."""
