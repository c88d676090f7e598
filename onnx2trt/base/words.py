"""Names in sentences."""

from __future__ import annotations

import os
import re
import shlex
import textwrap
from collections.abc import Sequence

BEGINNING = re.compile(r"\n(?=\S)")  # of a line that is not indented
# what a terminal acts upon instead of showing it: control characters but tab and newline, what parts lines, and what turns their direction
ACTED_UPON = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def listed(names: Sequence[str], most: int) -> str:
    """The first names, and how many there are besides: "a, b and 3 more"."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def to_type(name: str, value: str, between: str = ":") -> str:
    """NAME:VALUE for a command that the user may paste into a shell: whatever stands in a name of the model is a word there."""
    return shlex.quote(f"{name}{between}{value}")


def base_name(path: str) -> str:
    """The last part of a path, for lines that must not be long."""
    return os.path.basename(os.path.normpath(path)) or path


def printable(text: str, indent: str = "  ") -> str:
    """Text as it may go to a terminal: names out of models and files may hold escape sequences, and lines that look like ours.

    Args:
        indent: of all lines but the first, so that none of them can begin like a message of its own.
    """
    shown = text.encode("utf-8", "backslashreplace").decode()  # file names may hold bytes that are no text
    shown = ACTED_UPON.sub(lambda found: found[0].encode("unicode_escape").decode(), shown)
    return BEGINNING.sub("\n" + indent, shown)


def error_text(message: str, hint: str) -> str:
    """What a terminal gets of an error."""
    return printable(f"error: {message}") + (f"\n{printable(f'hint: {hint}')}" if hint else "")


def in_lines(text: str, columns: int) -> str:
    """Broken between words, not within one as a terminal does it; each line goes on two characters further in than it begins.

    Args:
        columns: of the terminal; what is longer without a space, as a path, stays whole.
    """
    return "\n".join(broken for line in text.split("\n") for broken in _broken(line, max(columns, 20)))


def _broken(line: str, columns: int) -> list[str]:
    if len(line) <= columns:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    within = {"initial_indent": indent, "subsequent_indent": indent + "  ", "break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(line.lstrip(), columns, **within)
