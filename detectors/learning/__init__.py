"""What learned detectors stand on: levels of many series, and how rare a score is. Pure, and without the engine."""
