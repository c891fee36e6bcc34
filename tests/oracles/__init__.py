"""Slow and obvious twins of what the product does fast."""
