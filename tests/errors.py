"""What a test asks of an error for the user: its code and the facts in it, not its English."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vtoonify_lib.config import VToonifyError


@contextmanager
def refuses(code: str, *facts: object) -> Iterator[pytest.ExceptionInfo[VToonifyError]]:
    """A VToonifyError of that code is raised inside; its message names the facts: a file, a number, what to use."""
    with pytest.raises(VToonifyError) as caught:
        yield caught
    message = str(caught.value)
    assert caught.value.code == code and all(str(fact) in message for fact in facts), f"{caught.value.code}: {message}"
