"""Rules for the text of secrets, the same for options, variables, files and the profile file."""

import contextlib
import re
from pathlib import Path

_ENDS = re.compile(r"\A[\s\ufeff]+|[\s\ufeff]+\Z")
_QUOTES = ('""', "''", "\u201c\u201d", "\u2018\u2019", "``")

_PLAIN = re.compile(r"[A-Za-z0-9._/-]+")
_NO_FOLDERS = (Path(), Path("/"))
_LONGEST_NAME = 255

IN_QUOTES = "begins and ends with a quote; remove the quotes"
IS_A_TOKEN = "is a token (not shown); use the path of the file that contains it"  # noqa: S105


def stripped(text: str) -> str:
    """The text without byte order mark, blanks and line breaks at its ends.

    Editors and ``echo`` add them, and no secret of the service has them there.
    """
    return _ENDS.sub("", text)


def is_in_quotes(text: str) -> bool:
    """Whether a value still has quotes: ``docker run --env-file`` keeps those for a shell.

    Word processors and chats turn them into typographic ones.
    """
    return len(text) > 1 and text[0] + text[-1] in _QUOTES


def is_surely_a_path(written: str, path: str) -> bool:
    """Whether a text names a file, and is not the secret itself where the file belongs.

    A file that exists does, and one beside it. So does a plain absolute path.

    Args:
        written: the text.
        path: the same, relative to the working directory.
    """
    folder = Path(written).parent
    with contextlib.suppress(OSError, ValueError):  # not allowed to look, too long, ...
        if Path(path).exists() or (folder not in _NO_FOLDERS and Path(path).parent.exists()):
            return True
    return folder.is_absolute() and folder not in _NO_FOLDERS and bool(_PLAIN.fullmatch(written))


def is_a_token(text: str) -> bool:
    """Whether a text is a token, such as a JWT, where the path of its file belongs."""
    return text.startswith("eyJ") or max(map(len, text.split("/"))) > _LONGEST_NAME
