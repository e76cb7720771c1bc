"""Errors for users: each message says what was given, what was expected and what to do."""


class OveError(Exception):
    """Base of all errors that a command reports in one sentence, without a traceback."""

    exit_code = 2
    """Of the command that it ends."""


class BadClip(OveError):
    """An input that cannot be used: empty, truncated, of another format or a changing size, too slow to decode."""

    def __init__(self, message: str, position: int | None = None) -> None:
        """`position`: index of the frame (or byte) where it failed, if known."""
        super().__init__(message)
        self.position = position


class BadShard(OveError):
    """A shard folder, shard, record or label file that is missing, damaged, or of another version."""


class BadCheckpoint(OveError):
    """A checkpoint that is missing, damaged, or of another model or configuration."""


class DamagedCheckpoint(BadCheckpoint):
    """A checkpoint whose files or arrays are not what was saved; the one before it may be whole."""


class BadInput(OveError, ValueError):
    """An array that the encoder cannot use: of a wrong shape, dtype, layout or range."""


class ConfigError(OveError):
    """A configuration with an unknown key, a wrong type or values that do not fit each other."""


class TrainingStopped(OveError):
    """A run that stopped itself: a loss that is not finite, too many bad records, or the like."""


class ProcessLost(TrainingStopped):
    """Another process of the run is gone, or does not come; started again, all go on from the newest checkpoint."""

    exit_code = 69  # EX_UNAVAILABLE of sysexits.h: a consequence, whose cause is the code of the other


class Unavailable(OveError):
    """Something outside this environment that is not available: a remote file, a package, another Python."""
