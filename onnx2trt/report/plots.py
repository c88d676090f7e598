"""Plots of the report, as SVG text to stand inside the page. The only matplotlib.

No text of strangers (names of files, layers, tensors) is drawn: matplotlib would read a formula into a dollar sign. Colours are written as
variables of the page's style sheet, so that plots follow light and dark.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Sequence

import numpy as np

INCHES = (4.4, 2.35)  # small enough for its text to be read on a phone, where the page scales it down
INK, FAINT, GRID, MODEL, ENGINE, BAD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"  # stand for the variables below
VARIABLES = {INK: "--ink", FAINT: "--faint", GRID: "--line", MODEL: "--model", ENGINE: "--engine", BAD: "--bad"}
BINS = 60
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "onnx2trt",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "xtick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.borderpad": 0,
    "legend.handlelength": 1.4,
    "axes.formatter.limits": (-3, 4),
    "axes.formatter.use_mathtext": False,
}


def values(reference: np.ndarray, candidate: np.ndarray, engine: str) -> str:
    """How often which values come, in both.

    Args:
        engine: what the candidate is called.
    """
    both = [array[np.isfinite(array)] for array in (reference, candidate)]
    edges = _edges(np.concatenate(both))

    def draw(axes) -> None:
        (a, _), (b, _) = (np.histogram(array, edges) for array in both)
        axes.stairs(a, edges, color=MODEL, fill=True, alpha=0.35, label="model")
        axes.stairs(b, edges, color=ENGINE, linewidth=1.3, label=engine)
        _log_counts(axes, max(a.max(), b.max()))
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel("value")
        axes.set_ylabel("values (log)")
        _legend(axes)

    return _svg(draw)


def line(reference: np.ndarray, candidate: np.ndarray, engine: str) -> str:
    """Values in their order, of both."""

    def draw(axes) -> None:
        places = np.arange(len(reference))
        axes.plot(places, reference, color=MODEL, linewidth=1.6, label="model")
        axes.plot(places, candidate, color=ENGINE, linewidth=1, linestyle=(0, (4, 2)), label=engine)
        axes.locator_params(axis="x", nbins=6, integer=True)
        axes.set_xlabel("place")
        axes.set_ylabel("value")
        _legend(axes)

    return _svg(draw)


def errors(reference: np.ndarray, candidate: np.ndarray) -> str:
    """How often which errors come."""
    with np.errstate(invalid="ignore"):
        found = candidate - reference
    found = found[np.isfinite(found)]
    edges = _edges(found)

    def draw(axes) -> None:
        counts, _ = np.histogram(found, edges)
        axes.stairs(counts, edges, color=ENGINE, fill=True, alpha=0.85)
        axes.axvline(0, color=INK, linewidth=0.8)
        _log_counts(axes, counts.max())
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel("difference from the model")
        axes.set_ylabel("values (log)")

    return _svg(draw)


def drops(percent: Sequence[float], pooled: float, limit: float | None) -> str:
    """The drop of each sample, the largest first, against what all of them have together."""
    ordered = np.sort(np.minimum(np.asarray(percent), 1e6))[::-1]

    def draw(axes) -> None:
        if len(ordered) <= 60:
            axes.bar(np.arange(1, len(ordered) + 1), ordered, width=0.7, color=ENGINE)
        else:
            axes.stairs(ordered, np.arange(len(ordered) + 1) + 0.5, color=ENGINE, fill=True)
        axes.axhline(pooled, color=INK, linewidth=1, label=f"all together {_percent(pooled)}")
        top = max(float(ordered[0]), pooled, 1e-9)
        if limit is not None and limit <= 4 * top:
            axes.axhline(limit, color=BAD, linewidth=1, linestyle=(0, (4, 2)), label=f"limit {_percent(limit)}")
            top = max(top, limit)
        axes.set_ylim(0, top * 1.12)
        axes.set_xlim(0.4, len(ordered) + 0.6)
        axes.locator_params(axis="x", nbins=8, integer=True)
        axes.xaxis.grid(False)
        axes.set_xlabel("samples, the largest drop first")
        axes.set_ylabel("drop, %")
        _legend(axes)

    return _svg(draw)


def latency(times_ms: Sequence[float], percentiles: dict[str, float]) -> str:
    """How often which times come; the slowest 0.5 % lie in the last bar.

    Args:
        percentiles: label -> milliseconds.
    """
    times = np.asarray(times_ms, np.float64)
    end = max(float(np.quantile(times, 0.995)), max(percentiles.values()))
    edges = _edges(np.minimum(times, end))

    def draw(axes) -> None:
        counts, _ = np.histogram(np.minimum(times, end), edges)
        axes.stairs(counts, edges, color=ENGINE, fill=True, alpha=0.85)
        for (label, value), line in zip(percentiles.items(), ("-", (0, (4, 2)), (0, (1, 1.5)))):
            axes.axvline(value, color=INK, linewidth=1, linestyle=line, label=f"{label} {value:.3f} ms")
        axes.locator_params(axis="x", nbins=7)
        axes.set_xlabel("milliseconds")
        axes.set_ylabel("inferences")
        _legend(axes)

    return _svg(draw)


def ranges(largest: Sequence[float], quantized: Sequence[bool]) -> str:
    """The largest value that INT8 holds in each tensor, in the order of the network."""
    heights, int8 = np.asarray(largest, np.float64), np.asarray(quantized, bool)

    def draw(axes) -> None:
        places = np.arange(1, len(heights) + 1)
        size = 18 if len(heights) <= 120 else 8
        for chosen, color, marker, label in ((int8, MODEL, "o", "read by INT8 layers"), (~int8, ENGINE, "x", "not used")):
            if chosen.any():
                axes.scatter(places[chosen], heights[chosen], s=size, color=color, marker=marker, linewidths=1, label=label)
        axes.set_yscale("log")
        axes.xaxis.grid(False)
        axes.locator_params(axis="x", nbins=8, integer=True)
        axes.set_xlabel("tensors, in the order of the network")
        axes.set_ylabel("largest value (log)")
        if heights.max() < 30 * heights.min():
            from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.set_minor_formatter(NullFormatter())
        _legend(axes)

    return _svg(draw)


def _edges(found: np.ndarray) -> np.ndarray:
    """Edges of equal bins over all values, also where there are none or only one."""
    low, high = (float(found.min()), float(found.max())) if found.size else (0.0, 1.0)
    if not high - low > 1e-12 * max(abs(low), abs(high), 1e-30):
        middle = abs(low) or 1.0
        low, high = low - 0.1 * middle, high + 0.1 * middle
    return np.linspace(low, high, BINS + 1)


def _log_counts(axes, most: float) -> None:
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(0, max(float(most), 1.0) * 3)
    steps = range(0, max(int(np.log10(max(most, 1))), 0) + 1)
    ticks = [10**step for step in steps][:: 1 + len(steps) // 5]
    axes.set_yticks([0, *ticks], ["0", *(f"{tick:,}".replace(",", " ") for tick in ticks)])
    axes.set_yticks([], minor=True)
    axes.xaxis.grid(False)


def _legend(axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(labels), columnspacing=1.2, handletextpad=0.5)


def _percent(value: float) -> str:
    return f"{value:.3g} %"


def _svg(draw) -> str:
    """The plot that `draw` makes on axes, without anything that a page does not need."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it complains where there is no home folder
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=INCHES, layout="constrained")
        draw(figure.subplots())
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = re.sub(r"<(metadata|style).*?</\1>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg class="plot" \1 aria-hidden="true">', text)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 var(--font)", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", text)
    for color, variable in VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    return _own_names(re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).strip())


def _own_names(svg: str) -> str:
    """Names inside an SVG hold for all of the page, so those of two plots must differ."""
    _own_names.count = getattr(_own_names, "count", 0) + 1
    prefix = f"p{_own_names.count}-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg).replace("xlink:href", "href")
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", svg)
