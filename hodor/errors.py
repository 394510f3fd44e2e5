"""Errors that the user can fix: their exception, and the operating system's errors of that kind."""

import errno

PLACE_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP),
)
"""A full or read-only disk, a file where a folder is expected, or a path that cannot exist; other system errors keep their traceback."""


def printable(text: str) -> str:
    """Escapes control characters, which file names, archives and servers may bring; line ends stay."""
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
    """One of PLACE_ERRORS as a message that names the file and the fix; None for any other error."""
    if error.errno not in PLACE_ERRORS:
        return None
    return system_error(
        error, "free space or fix the folder, then run the same command again: nothing that was done is lost"
    )


def system_error(error: OSError, fix: str) -> str:
    """A system error as a message: its file, what is wrong, the fix."""
    return f"{error.filename or 'writing'}: {error.strerror}; {fix}"
