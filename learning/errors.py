"""Mistakes of a person who learns from sessions: one line each, with the way out."""

from agent.errors import GeliError


class DataError(GeliError):
    """A source that is missing, malformed, or holds too little to learn from."""


class TrainingError(GeliError):
    """A run that cannot start or had to stop: a bad checkpoint, a collapsed policy."""


class RegistryError(GeliError):
    """A reward or policy that is unknown, damaged, or not allowed where it was asked for."""
