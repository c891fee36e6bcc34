"""Honest traffic, with all that makes it look like an attack."""
