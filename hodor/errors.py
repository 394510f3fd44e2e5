"""The one exception for everything that a user can mend."""


class HodorError(Exception):
    """Bad input, bad settings or a failed run.

    The message is one sentence or two for a person: it names the file (or the key) that is wrong and what to do
    about it. The command line prints it without a traceback and exits with status 1.
    """
