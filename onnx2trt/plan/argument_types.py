"""Types of arguments: text in, value out, ArgumentTypeError with the text seen."""

from __future__ import annotations

import argparse
import math
import re

METRICS = ("auto", "values", "top1", "argmax", "equal", "rows", "cosine", "noise")  # besides mask:T


def positive_int(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 2**31 - 1:  # TensorRT's dimensions are bounded by int32
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 2147483647")
    return value


def count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 255:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 255")
    return int(text)


def names(text: str) -> tuple[str, ...]:
    """'+CUBLAS,cudnn' -> ('CUBLAS', 'CUDNN')."""
    found = tuple(part.strip().lstrip("+").upper() for part in text.split(",") if part.strip())
    if not found or not all(name.replace("_", "").isalnum() for name in found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of names such as CUBLAS,CUDNN")
    return found


def number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def gigabytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 2**-10 <= value < 2**20:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GB from 0.001 (1 MB) to {2**20}")
    return value


def percent(text: str) -> float:
    value = number(text)
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage from 0 to 100")
    return value


def share_percent(text: str) -> float:
    value = number(text)
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage above 0, up to 100")
    return value


def metrics(text: str) -> tuple[tuple[str, str], ...]:
    """'mask:.50,out:0:top1' -> (('', 'mask:0.5'), ('out:0', 'top1')); '' stands for all outputs, whose names may hold colons."""
    return tuple(_metric(part) for part in (part.strip() for part in text.split(",")))


def _metric(text: str) -> tuple[str, str]:
    found = _known_metric(text)
    if found:
        return "", found
    places = [index for index, letter in enumerate(text) if letter == ":" and index]
    for place in reversed(places):  # what stands behind the last colon may be a mask's threshold
        found = _known_metric(text[place + 1 :])
        if found:
            return text[:place], found
    kinds = f"{', '.join(METRICS)} and mask:T with a number T such as mask:0.5"
    raise argparse.ArgumentTypeError(f"{text!r} is none of {kinds}, nor OUTPUT:METRIC with one of them")


def _known_metric(text: str) -> str:
    """'mask:.50' -> 'mask:0.5'; the other names as they are; '' for what is none."""
    if text in METRICS:
        return text
    name, _, threshold = text.partition(":")
    try:
        return f"mask:{number(threshold)!r}" if name == "mask" else ""
    except argparse.ArgumentTypeError:
        return ""


def numbers(text: str) -> tuple[float, ...]:
    return tuple(number(part) for part in text.split(",") if part.strip())


def gpu_archs(text: str) -> tuple[str, ...]:
    """'sm_89,8.9,120' -> ('89', '89', '120')."""
    archs = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        match = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", part, re.IGNORECASE)
        if not match:
            raise argparse.ArgumentTypeError(f"{part!r} is not a compute capability such as sm_89, 89 or 8.9")
        archs.append(match[1] + match[2])
    return tuple(archs)


def least_shapes(text: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """As shapes; a size may be 0, as that of a cache that nothing is in yet."""
    return shapes(text, least=0)


def shapes(text: str, least: int = 1) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """'image:0:1x3x8x8,mask:1x8' -> (('image:0', (1, 3, 8, 8)), ('mask', (1, 8))); names may hold colons.

    A shape may be written with commas, too: 'image:1,3,8,8', '[1, 3, 8, 8]'.
    """
    shapes = []
    for part in filter(None, (p.strip() for p in _with_crosses(text).split(","))):
        name, _, dims = part.rpartition(":")
        if not re.fullmatch(r"\d+(?:[xX]\d+)*", dims):
            raise argparse.ArgumentTypeError(f"{part!r} is not NAME:DIMS such as input:1x3x224x224")
        shape = tuple(int(dim) for dim in re.split("[xX]", dims))
        if not all(least <= dim <= 2**31 - 1 for dim in shape):
            raise argparse.ArgumentTypeError(f"{part!r}: every dimension must be from {least} to 2147483647")
        shapes.append((name, shape))
    return tuple(shapes)


def _with_crosses(text: str) -> str:
    """'a:1,3,8,8,b:1x8' -> 'a:1x3x8x8,b:1x8': a number alone belongs to the numbers before it, in brackets or not."""
    text = re.sub(r"[\[(]([\d\s,]*\d)[\s,]*[\])]", r"\1", text)
    return re.sub(r"(?<![\dxX])(\d+(?:\s*,\s*\d+)+)\s*(?=,|$)", lambda found: re.sub(r"\s*,\s*", "x", found[1]), text)


def image_size(text: str) -> tuple[int, int]:
    """'640' -> (640, 640), '480x640' -> (480, 640): height and width."""
    match = re.fullmatch(r"\s*[\[(]?\s*(\d{1,6})(?:\s*[xX,]\s*(\d{1,6}))?\s*[\])]?\s*", text)
    size = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if 0 in size:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size in pixels such as 640, or HEIGHTxWIDTH such as 480x640")
    return size


def shape_values(text: str) -> tuple[tuple[str, tuple[tuple[int, ...], ...]], ...]:
    """'size:8x8:16x16:40x40,keep:5' -> (('size', ((8, 8), (16, 16), (40, 40))), ('keep', ((5,), (5,), (5,)))); names may hold colons."""
    found = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        *name, last = part.split(":")
        values = [last]
        if len(name) > 2 and all(re.fullmatch(VALUES, other) for other in name[-2:]):
            values = [*name[-2:], last]
            name = name[:-2]
        numbers = [tuple(map(int, re.split("[xX]", value))) for value in values if re.fullmatch(VALUES, value)]
        if not any(name) or len(numbers) != len(values) or len(set(map(len, numbers))) > 1:
            raise argparse.ArgumentTypeError(f"{part!r} is not NAME:VALUES or NAME:MIN:OPT:MAX such as size:224x224:640x640:960x960")
        if not all(-(2**63) <= number < 2**63 for row in numbers for number in row):
            raise argparse.ArgumentTypeError(f"{part!r}: values must fit into 64 bits")
        found.append((":".join(name), tuple(numbers * (3 if len(numbers) == 1 else 1))))
    return tuple(found)


def profile(text: str) -> tuple[str, tuple[tuple[str, tuple[tuple[int, ...], ...]], ...]]:
    """'small=x:1x8:2x8:4x8,y:1x4' -> ('small', (('x', ((1, 8), (2, 8), (4, 8))), ('y', ((1, 4), (1, 4), (1, 4)))))."""
    name, _, given = text.partition("=")
    name, found = name.strip(), []
    for part in filter(None, (p.strip() for p in given.split(","))):
        words = part.split(":")
        several = len(words) > 2 and all(re.fullmatch(SHAPE, word) for word in words[-3:])
        sizes = [tuple(map(int, re.split("[xX]", word))) for word in words[-3 if several else -1 :] if re.fullmatch(SHAPE, word)]
        if (
            len(sizes) != (3 if several else 1)
            or len(set(map(len, sizes))) > 1
            or not all(a <= b for one, two in zip(sizes, sizes[1:]) for a, b in zip(one, two))
        ):
            raise argparse.ArgumentTypeError(
                f"{part!r} is not INPUT:DIMS or INPUT:MIN:OPT:MAX, ascending, such as x:1x3x64x64:4x3x64x64:8x3x64x64"
            )
        found.append((":".join(words[: -len(sizes)]), tuple(sizes * (1 if several else 3))))
    if not name or not found or len(dict(found)) != len(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=INPUT:MIN:OPT:MAX[,INPUT:...], each input once")
    return name, tuple(found)


SHAPE = r"\d{1,9}(?:[xX]\d{1,9})*"
VALUES = r"-?\d+(?:[xX]-?\d+)*"


def bindings(text: str) -> tuple[tuple[str, str], ...]:
    """'sr=16000' -> (('sr', '16000'),); what the value is, the type of the input tells."""
    name, _, value = text.partition("=")
    if not name.strip() or not value.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE such as sr=16000, mask=[1,1,0] or table=table.npy")
    return ((name.strip(), value.strip()),)


def layer_precisions(text: str) -> tuple[tuple[str, str], ...]:
    """'a*:fp32,b:0:fp16' -> (('a*', 'fp32'), ('b:0', 'fp16'))."""
    return _typed(text, "PATTERN:PRECISION with precision", ("fp32", "fp16", "bf16"))


def io_types(text: str) -> tuple[tuple[str, str], ...]:
    """'x:fp16,y:0:fp32' -> (('x', 'fp16'), ('y:0', 'fp32'))."""
    return _typed(text, "NAME:TYPE with type", ("fp32", "fp16"))


def _typed(text: str, form: str, known: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        pattern, _, precision = part.rpartition(":")
        if not pattern or precision.lower() not in known:
            raise argparse.ArgumentTypeError(f"{part!r} is not {form} {', '.join(known[:-1])} or {known[-1]}")
        pairs.append((pattern, precision.lower()))
    return tuple(pairs)


def flatten(groups) -> tuple:
    """Values of an 'extend' flag whose type makes tuples: [(1, 2), (3,)] -> (1, 2, 3)."""
    return tuple(value for group in groups for value in group)
