"""What can go wrong here, in one line that a person can act on."""


class PerceptionError(ValueError):
    """A model, a setting, a frame or a file that perception cannot use.

    The message is one line and names the file or the setting; the command line shows it as it is.
    """


class ModelError(PerceptionError):
    """A model file that is missing or is not what its engine reads."""
