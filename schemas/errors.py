"""Every error a user of Floodwall can meet, and who can mend it.

    FloodwallError
    ├── ConfigError      a setting is wrong; the operator mends the file or the message (exit 2)
    ├── SourceError      an input cannot be read; the operator names another (exit 3)
    ├── StateError       a saved state is damaged or of another version; the operator starts cold (exit 4)
    ├── UsageError       words on the command line that do not fit together (exit 2)
    ├── BrokerError      Kafka cannot be reached, refuses us, or lacks a topic; whoever runs it mends that (exit 6)
    └── EdgeError        a firewall is not there or not allowed; whoever runs the host mends that (exit 7)

A record that cannot be decoded is not an error but poison: it is counted with its reason and the run goes on
(`schemas.fields.Poison`). Anything else that is raised is a bug in Floodwall.
"""

from __future__ import annotations


class FloodwallError(Exception):
    """Something a user can mend. The message is one line: what was expected, what came, and where."""

    exit_code = 1


class ConfigError(FloodwallError):
    """A setting is unknown, of the wrong type or out of its bounds; the message names its path."""

    exit_code = 2


class UsageError(FloodwallError):
    """Options that do not fit together."""

    exit_code = 2


class SourceError(FloodwallError):
    """An input does not exist, may not be read, or is not what its name says."""

    exit_code = 3


class StateError(FloodwallError):
    """A saved state cannot be used; nothing of it was."""

    exit_code = 4


class BrokerError(FloodwallError):
    """Kafka cannot be reached, does not let us in, lacks a topic or a right; the message says what to do."""

    exit_code = 6


class EdgeError(FloodwallError):
    """An enforcement point is not there, not allowed, or would block the wrong party; the message says what to do."""

    exit_code = 7
