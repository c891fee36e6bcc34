"""The command line, one file per command group; it holds no logic."""
