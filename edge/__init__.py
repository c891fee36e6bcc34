"""Subscribers of the enforcement topic, which turn mitigations into rules of a firewall."""
