"""One small tree of errors a person can act on: what is wrong, and the way out."""


class GeliError(Exception):
    """A mistake or a lack that the user can mend. Printed as one line; exit code 2.

    Args:
        problem: what is wrong, naming the file, key or device.
        way_out: what to do about it (a command, a setting); may be empty.
    """

    def __init__(self, problem: str, way_out: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.way_out = way_out

    def __str__(self) -> str:
        return f"{self.problem} — {self.way_out}" if self.way_out else self.problem


class ConfigError(GeliError):
    """A config file, key or value that cannot be used."""


class WeightsError(GeliError):
    """A model file that is missing, wrong or cannot be fetched."""


class MediaError(GeliError):
    """A recording, frame or device that cannot be read."""


class StoreError(GeliError):
    """The session store cannot be opened, read or written."""


class EngineError(GeliError):
    """An engine that failed while it ran (a policy server that is down, say)."""


class PolicyError(GeliError):
    """A learned policy, or the registry that names it, that cannot be used."""
