"""Attacks on the service, each at three strengths, and the traps in which attackers want others to be stopped."""
