"""The kernels of `schemas.decode`: bytes become columns here, and no Python runs per event."""
