"""The one exception for everything that a user can mend."""


class HodorError(Exception):
    """Bad input, bad settings or a failed run.

    The message is one sentence or two for a person: it names the file (or the key) that is wrong and what to do
    about it. The command line prints it without a traceback and exits with status 1.
    """


class Stopped(HodorError):
    """A run that was told to stop and did, with its state saved; the command line exits with `status`."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
