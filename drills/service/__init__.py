"""The service that drills are about: who uses it, from where, and what can be asked of it."""
