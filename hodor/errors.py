"""The one exception for everything that a user can mend, and the errors of the system that are of that kind."""

import errno

PLACE_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
)
"""A full or read-only disk, or a file where a folder is wanted, is the user's to mend; other errors keep their traceback."""


def place_error(error: OSError) -> str | None:
    """One of PLACE_ERRORS in a sentence that names the file and the mend; None for any other."""
    if error.errno not in PLACE_ERRORS:
        return None
    return system_error(
        error, "free space or mend the folder, then run the same command again: nothing that was done is lost"
    )


def system_error(error: OSError, mend: str) -> str:
    """An error of the system in a sentence: its file, what is wrong, the mend."""
    return f"{error.filename or 'writing'}: {error.strerror}; {mend}"


def printable(text: str) -> str:
    """Escapes control characters, which file names, archives and servers may bring; line ends stay."""
    return "".join(c if c == "\n" or not (ord(c) < 32 or 127 <= ord(c) < 160) else ascii(c)[1:-1] for c in text)


class HodorError(Exception):
    """Bad input, bad settings or a failed run.

    The message is one sentence or two for a person: it names the file (or the key) that is wrong and what to do
    about it. The command line prints it without a traceback and exits with status 1.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(str(message)))


class Stopped(HodorError):
    """A run that was told to stop and did, with its state saved; the command line exits with `status`."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
