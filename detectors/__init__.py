"""Pure detection: one detector per file, its configuration and documentation with it."""
