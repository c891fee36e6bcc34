"""Recorded traffic: read it, run it, verify and compare decisions, report."""
