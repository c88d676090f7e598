"""The result as one HTML page that needs nothing but itself: no network, no script, no font. The only jinja2."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.words import base_name
from onnx2trt.compare.evidence import Evidence
from onnx2trt.plan.parser import COMMAND
from onnx2trt.report import facts, figures, sections
from onnx2trt.report.neighbours import neighbours
from onnx2trt.report.next_steps import next_steps
from onnx2trt.report.result import mega
from onnx2trt.report.side_by_side import variants

LIBRARIES = ("jinja2", "matplotlib")
LONGEST_ENDING = 5  # characters of a file name behind its last point


def check_libraries() -> None:
    """
    Raises:
        ConversionError: MACHINE, where a library that the page is made with is not installed.
    """
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConversionError(
            f"--report needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            hint=f"pip install {' '.join(missing)}, or leave --report out.",
            code=ExitCode.MACHINE,
        )


def render(result: dict, evidence: Evidence, arguments: list[str], written: Sequence[str] = ()) -> bytes:
    """The page.

    Args:
        arguments: of the command line, as typed.
        written: the files that this run writes.

    Raises:
        ConversionError: MACHINE, where a library is missing.
    """
    check_libraries()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of files, layers and tensors come from strangers
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for write in (
        sections.percent,
        sections.decibels,
        mega,
        sections.number,
        sections.seconds,
        sections.seen,
        base_name,
        wrapped,
        whole_flags,
    ):
        environment.filters[write.__name__] = write
    page = environment.get_template("page.html.j2").render(
        result=result,
        title=sections.title(result),
        verdict=sections.verdict(result),
        cards=sections.cards(result),
        word=figures.engine_word(result),
        looks=figures.looks(result, evidence),
        drops=figures.drops(result, evidence),
        latency=figures.latency(result, evidence),
        layers=sections.layers(result),
        ranges=figures.ranges(result, evidence),
        tried=sections.tried(result),
        variants=variants(result),
        steps=next_steps(result),
        neighbours=neighbours(evidence),
        timings=sections.timings(result),
        facts=facts.facts(result),
        metrics=sections.metrics(result),
        readable=sections.readable(result),
        written=written,
        command=shlex.join([*COMMAND, *arguments]),
        folder=os.getcwd(),
        made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )
    return page.encode("utf-8", "backslashreplace")  # file names may hold bytes that are no text


def whole_flags(text: str):
    """A sentence whose flags are not broken behind their hyphens."""
    from markupsafe import Markup, escape

    parts = re.split(r"(--[a-z][a-z0-9-]*)", str(text))
    return Markup("").join(
        Markup('<span class="flag">{}</span>').format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )


def wrapped(name: str):
    """A name of a file, layer or tensor that may be broken behind its separators, and nowhere else; not before the end of a file name."""
    from markupsafe import Markup, escape

    parts = re.findall(r"[^/_.:\-]*[/_.:\-]+|[^/_.:\-]+", str(name))
    if len(parts) > 1 and parts[-2].endswith(".") and len(parts[-1]) <= LONGEST_ENDING:
        parts[-2:] = ["".join(parts[-2:])]
    return Markup("<wbr>").join(escape(part) for part in parts)
