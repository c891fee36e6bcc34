"""What crosses a border: events as columns, decoders, tallies, findings, mitigations, configuration and errors."""
