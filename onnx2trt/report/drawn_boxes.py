"""A detector's boxes on the page: over the image that the model was given, and side by side in a table."""

from __future__ import annotations

from onnx2trt.compare.detections import SHOWN, Pair, match
from onnx2trt.compare.evidence import Output

ROWS = 30  # boxes that are drawn and listed


def boxes(output: Output, word: str) -> dict:
    """
    Args:
        word: what the candidate is called.

    Returns:
        size: (width, height) of the image; rows: number, class, scores and overlap of each box; marks: what is drawn, with the same
        numbers; more: boxes that are left out; sentence: what it comes to.
    """
    pairs = match(output.reference, output.candidate)
    height, width = output.detector.size
    return {
        "size": (width, height),
        "rows": [_row(number, pair, output.detector.names) for number, pair in enumerate(pairs[:ROWS], 1)],
        "marks": [mark for number, pair in enumerate(pairs[:ROWS], 1) for mark in _marks(number, pair, max(width, height))],
        "more": max(len(pairs) - ROWS, 0),
        "sentence": _sentence(pairs, word),
        "score": SHOWN,
    }


def _row(number: int, pair: Pair, names) -> dict:
    classes = [names.get(int(box[5]), f"class {int(box[5])}") for box in (pair.model, pair.engine) if box is not None]
    scores = [None if box is None else float(box[4]) for box in (pair.model, pair.engine)]
    both = None not in scores
    return {
        "number": number,
        "name": " → ".join(dict.fromkeys(classes)),
        "model": scores[0],
        "engine": scores[1],
        "overlap": pair.overlap if both else None,
        "same": both and len(set(classes)) == 1,
    }


def _marks(number: int, pair: Pair, longest: int):
    for of, box in (("model", pair.model), ("engine", pair.engine)):
        if box is not None:
            x1, y1, x2, y2 = (round(float(place), 1) for place in box[:4])
            named = of == "model" or pair.model is None
            yield {"of": of, "x": x1, "y": y1, "width": max(x2 - x1, 0), "height": max(y2 - y1, 0), "number": number if named else None}


def _sentence(pairs: list[Pair], word: str) -> str:
    model = [pair for pair in pairs if pair.model is not None and pair.model[4] >= SHOWN]
    again = [pair for pair in model if pair.engine is not None and pair.engine[5] == pair.model[5]]
    only = sum(pair.model is None for pair in pairs)
    if not model:
        found = f"The model finds nothing in this image; the {word} finds {only}." if only else "Neither finds anything in this image."
        return found
    share = f"{'All' if len(again) == len(model) else f'{len(again)} of'} {len(model)} boxes of the model are" if len(model) > 1 else ""
    share = share or f"The one box of the model is{'' if again else ' not'}"
    most = max((abs(float(pair.model[4] - pair.engine[4])) for pair in again), default=None)
    scores = "" if most is None else f"; scores differ by {f'{most:.3f} at most' if most >= 0.0005 else 'less than 0.001'}"
    more = f". The {word} finds {only} that the model does not" if only else ""
    return f"{share} found again by the {word}{scores}{more}."
