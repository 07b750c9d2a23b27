"""Rules for the text of secrets, the same for options, variables, files and the profile file."""

import re

_ENDS = re.compile(r"\A[\s\ufeff]+|[\s\ufeff]+\Z")
_QUOTES = ('"', "'")

IN_QUOTES = "begins and ends with a quote; remove the quotes"


def stripped(text: str) -> str:
    """The text without byte order mark, blanks and line breaks at its ends.

    Editors and ``echo`` add them, and no secret of the service has them there.
    """
    return _ENDS.sub("", text)


def is_in_quotes(text: str) -> bool:
    """Whether a value still has the quotes of a shell: ``docker run --env-file`` keeps them."""
    return len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES
