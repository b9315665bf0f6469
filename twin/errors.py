"""The errors of the workbench, one tree.

    WorkbenchError            exit code 1
    ├── UsageError            a wrong argument or configuration (exit code 2)
    ├── TraceError            a recorded file or table that cannot be trusted
    │   └── SchemaError       a table that does not fit its schema CSV
    ├── ScenarioError         a what-if that cannot be applied to this trace or cluster
    ├── SimulationError       a twin asked for something impossible
    ├── PolicyError           a policy that cannot be loaded, run or exported
    └── BridgeError           the live side refuses to act
        ├── BundleError       a bundle that is damaged, unsigned or not trusted
        ├── TelemetryLost     the plant did not say how it is: unknown, never zero
        └── LedgerError       an audit chain that does not verify

A refused promotion is a result, not an error (exit code 3). A message says what is wrong, where, and what to do about
it.
"""

from __future__ import annotations


class WorkbenchError(Exception):
    """Any failure that the workbench foresees; its message is meant for the user."""

    exit_code = 1


class UsageError(WorkbenchError):
    """A wrong argument or configuration value."""

    exit_code = 2


class TraceError(WorkbenchError):
    """A recorded file or table that cannot be trusted; names file, row and column."""


class SchemaError(TraceError):
    """A table that does not fit its schema."""


class ScenarioError(WorkbenchError):
    """A what-if that cannot be applied to this trace or cluster."""


class SimulationError(WorkbenchError):
    """A twin asked for something impossible."""


class PolicyError(WorkbenchError):
    """A policy that cannot be loaded, run or exported."""


class BridgeError(WorkbenchError):
    """The live side refuses to act."""


class BundleError(BridgeError):
    """A bundle that is damaged, unsigned or not signed by a trusted key."""


class TelemetryLost(BridgeError):
    """The plant gave no answer, or none that can be trusted."""


class LedgerError(BridgeError):
    """An audit chain that does not verify."""
