"""Small files beside engines, caches and models, which somebody else may have written: the one reader of their JSON. Standard library only.

What it gives is bounded in size and depth, and holds no number that Python cannot do arithmetic with; `record_of` compares what stands
where with the types of a dataclass.
"""

from __future__ import annotations

import json
import math
import os
import stat
import types
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from onnx2trt.base.errors import ConversionError, ExitCode

MOST_BYTES = 2**24  # the result of a network of 20 000 layers has some 3 MB
MOST_DEPTH = 64  # of lists and objects in one another; a result has about 8
LARGEST = 2**63  # of whole numbers

RESULT_HEAD = 64  # bytes in which a result says its schema_version

T = TypeVar("T")


class NotTaken(ValueError):
    """The text is not JSON, or not within the limits; the message says why, as a part of a sentence."""


def read_json(path: str):
    """The value in a file.

    Raises:
        OSError: it cannot be read; FileNotFoundError where there is none.
        NotTaken: it is no regular file, too large, or no JSON within the limits.
    """
    return parse_json(read_bounded(path))


def read_bounded(path: str, most: int = MOST_BYTES) -> bytes:
    """All bytes of a file that has at most `most`.

    Raises:
        OSError: it cannot be read; FileNotFoundError where there is none.
        NotTaken: it is no regular file (a pipe would be waited for), or larger.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # of a pipe, too, opening does not wait
    with open(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotTaken("it is not a regular file")
        if status.st_size > most:
            raise NotTaken(f"it has {status.st_size} bytes; at most {most} are read")
        return stream.read(most)  # not what was added since


def parse_json(text: str | bytes, most: int = MOST_BYTES, finite: bool = True):
    """The value that a text stands for.

    Args:
        text: bytes are UTF-8.
        most: characters or bytes.
        finite: refuse NaN and infinities, which JSON does not have.

    Raises:
        NotTaken
    """
    if len(text) > most:
        raise NotTaken(f"it has {len(text)} characters; at most {most} are read")
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        hooks = {"parse_constant": _refused, "parse_float": _finite} if finite else {}
        value = json.loads(text, parse_int=_whole, **hooks)
    except RecursionError:
        raise NotTaken(f"it is nested more than {MOST_DEPTH} deep") from None
    except ValueError as error:  # of JSON, and of UTF-8
        raise NotTaken(str(error)) from None
    _check_depth(value)
    return value


def _whole(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) >= LARGEST:
        raise NotTaken(f"the number {digits[:20]}... is too large")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise NotTaken(f"the number {digits[:20]} is too large")
    return value


def _refused(name: str) -> None:
    raise NotTaken(f"{name} is no number of JSON")


def _check_depth(value) -> None:
    level = [value] if isinstance(value, (list, dict)) else []
    for _ in range(MOST_DEPTH):
        parts = (entry.values() if isinstance(entry, dict) else entry for entry in level)
        level = [inner for part in parts for inner in part if isinstance(inner, (list, dict))]
    if level:
        raise NotTaken(f"it is nested more than {MOST_DEPTH} deep")


def check_replaceable(path: str) -> None:
    """What tells of a failure may take the place of an earlier result only: a --json that names the model by mistake must not cost it.

    Args:
        path: the file for a result; one that is missing, empty or not a regular file does (of the last, the writing says more).

    Raises:
        ConversionError: OUTPUT.
    """
    if not os.path.isfile(path):
        return
    try:
        with open(path, "rb") as stream:
            head = stream.read(RESULT_HEAD)
    except OSError:
        return
    if head and not (head.startswith(b"{") and b'"schema_version"' in head):
        hint = "Give --json a new name."
        raise ConversionError(f"{path} is not overwritten: it holds something else than a result", hint=hint, code=ExitCode.OUTPUT)


def record_of(kind: type[T], values: dict) -> T:
    """A dataclass made of a JSON object; lists become tuples where it wants these.

    Args:
        kind: a dataclass whose fields are of types that JSON has, or lists, tuples, dicts and unions of these.

    Raises:
        NotTaken: a field is missing, unknown, or holds something else.
    """
    if not isinstance(values, dict):
        raise NotTaken(f"{kind.__name__} is no object")
    hints = _hints(kind)
    tuples = {name: tuple(value) for name, value in values.items() if isinstance(value, list) and _wants_tuple(hints.get(name))}
    try:
        made = kind(**{**values, **tuples})
    except TypeError as error:
        raise NotTaken(str(error)) from None
    check_types(made)
    return made


def check_types(record) -> None:
    """
    Args:
        record: a dataclass as for record_of, whose fields may be such dataclasses, too.

    Raises:
        NotTaken: a field holds something else than its annotation says.
    """
    for name, hint in _hints(type(record)).items():
        value = getattr(record, name)
        if not fits(value, hint):
            raise NotTaken(f"{name} of {type(record).__name__} is {str(value)[:40]}")


@cache
def _hints(kind: type) -> dict:
    known = get_type_hints(kind)
    return {field.name: known[field.name] for field in fields(kind)}


def _wants_tuple(hint) -> bool:
    return any(get_origin(one) is tuple for one in (hint, *get_args(hint)))


def fits(value, hint) -> bool:
    """Whether a value of JSON is of an annotated type; a whole number is a float, too, and a list a tuple."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin in (list, tuple):
        return isinstance(value, (list, tuple)) and all(fits(entry, inner[0]) for entry in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(name, inner[0]) and fits(entry, inner[1]) for name, entry in value.items())
    if is_dataclass(hint):
        return isinstance(value, hint) and all(fits(getattr(value, name), of) for name, of in _hints(hint).items())
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, list | tuple if hint in (list, tuple) else hint)
