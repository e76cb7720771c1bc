"""The errors that users meet: each message says what was given, what was expected and what to do."""


class OveError(Exception):
    """Base of all errors that a command reports in one sentence, without a traceback."""

    exit_code = 2
    """Of the command that it ends."""


class BadClip(OveError):
    """A video that cannot be used: empty, truncated, not a video, of a changing size, too slow to decode."""

    def __init__(self, message: str, position: int | None = None) -> None:
        """`position`: index of the frame (or byte) where it went wrong, if that is known."""
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
    """A configuration with an unknown key, a wrong type or values that do not go together."""


class TrainingStopped(OveError):
    """A run that stopped itself: a loss that is not finite, or too many bad records."""


class ProcessLost(TrainingStopped):
    """Another process of the run is gone, or does not come; started again, all go on from the newest checkpoint."""

    exit_code = 69  # EX_UNAVAILABLE of sysexits.h: a consequence, whose cause is the code of the other


class Unavailable(OveError):
    """Something outside of this machine or environment that could not be had: a remote file, a package, another Python."""
