"""The report of a replay: what happened, for a manager on the first screen and for an engineer on the last."""
