"""Errors that the user can fix: the exception of this project, and messages for errors of the operating system."""

import errno

PLACE_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP),
)
"""Error numbers of a full or read-only disk, or of a path that cannot be written; others keep their traceback."""


def printable(text: str) -> str:
    """Escape control characters, which names of files and answers of servers may contain; line ends stay."""
    return "".join(c if c == "\n" or not (ord(c) < 32 or 127 <= ord(c) < 160) else ascii(c)[1:-1] for c in text)


class HodorError(Exception):
    """Bad input, bad settings or a failed run.

    The message is `FILE: what is wrong; what to do`. The command line prints it without a traceback and exits with
    status 1.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(str(message)))


class Stopped(HodorError):
    """A run that was stopped by a signal and saved its state; the command line exits with `status`."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def place_error(error: OSError) -> str | None:
    """Return the message of one of PLACE_ERRORS; None for any other error."""
    if error.errno not in PLACE_ERRORS:
        return None
    return system_error(error, "free space or fix the folder, then run the same command again; finished work is kept")


def system_error(error: OSError, fix: str) -> str:
    """Return the message of a system error: its file, what is wrong, and the fix."""
    return f"{error.filename or 'writing'}: {error.strerror}; {fix}"
