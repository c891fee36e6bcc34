"""Seeded, labelled traffic, honest and hostile."""
