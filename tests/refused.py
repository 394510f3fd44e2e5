"""Bad input."""

from collections.abc import Callable

import pytest

from hodor.errors import HodorError


def refused(message: str, function: Callable, *arguments, **keywords) -> str:
    """Call a function that must raise a HodorError of one printable line that matches `message`; return its text."""
    with pytest.raises(HodorError, match=message) as caught:
        function(*arguments, **keywords)
    assert str(caught.value).isprintable()
    return str(caught.value)
