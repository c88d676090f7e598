"""What TensorRT's warnings mean: the flood of them as a few counted lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

# Words of a warning, in lower case -> what it means for an engine that is compared with its model afterwards. Met in the builds of
# the tests on TensorRT 10.15, 11.2 and TensorRT-RTX, but for the last block, whose texts stand in the libraries.
KNOWN = {
    r"empty initializer .* non-empty data": "an empty weight (an optional input that is not used): harmless",
    r"detected layernorm nodes in fp16": "a layer normalisation in FP16: where its measured values are too large it is kept in FP32",
    r"running layernorm after self-attention": "a layer normalisation in FP16: where its measured values are too large it is kept in FP32",
    r"no valid obedient candidate": "a layer has no kernel in the preferred precision, so the fastest of the others is taken",
    r"missing scale and zero-point": "a tensor has no INT8 scale, so it stays in FP16 or FP32",
    r"calibrator is not being used": "INT8 takes its scales from the Q/DQ in the model, as planned",
    r"converting conv (weight|activation) scales": "INT8 scales are converted to the type that the kernel takes: harmless",
    r"weights (between types|are affected by this issue)": "weights too small for FP16 lose digits; the comparison shows what that costs",
    r"subnormal (fp16|bf16) value": "weights too small for FP16 lose digits; the comparison shows what that costs",
    r"outside the range of \w+ was clamped": "a constant is too large for its type in TensorRT (often an 'up to the end'): cut down to it",
    r"generated with int64 weights": "INT64 weights become INT32, the only integers that this TensorRT calculates with",
    r"make sure input .* has int64 binding": "an integer input is INT64, as in the model: what is bound to it must be INT64, too",
    r"lazy loading is not enabled": "CUDA_MODULE_LOADING=LAZY in the environment would save memory of the GPU",
    r"unable to determine gpu memory usage": "the driver does not tell how much memory of the GPU is in use: harmless",
    r"different models of devices": "the engine is from another model of GPU: slower than one built on this one, and not supported",
}
# Warnings that are none: some shapes of the optimization profile will not run, though the engine is built
FAULTS = (r"profile k(min|opt|max) values are not self-consistent",)
SHOWN = 3  # kinds of warnings that nobody has explained
SHORT = 70  # characters of each


def is_fault(text: str) -> bool:
    """Whether a warning says that promised shapes will not run."""
    return any(re.search(words, text.lower()) for words in FAULTS)


def kind(text: str) -> str:
    """A warning without the numbers and the quoted names in it, so that those that say the same are one."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\b(0x[0-9a-fA-F]+|\d+)\b", "#", text.strip().splitlines()[0] if text.strip() else "")


def explain(warnings: Iterable[tuple[str, int]]) -> list[str]:
    """A line for each meaning, and one for all others.

    Args:
        warnings: (text or kind, how often).
    """
    known: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for text, count in warnings:
        meaning = next((meaning for words, meaning in KNOWN.items() if re.search(words, text.lower())), None)
        if meaning:
            known[meaning] += count
        else:
            others[kind(text)] += count
    lines = [f"TensorRT warned {times(count)}: {meaning}" for meaning, count in known.items()]
    return lines + ([_unexplained(others)] if others else [])


def _unexplained(others: Counter[str]) -> str:
    total, kinds = sum(others.values()), len(others)
    examples = "; ".join(text if len(text) <= SHORT else text[:SHORT].rstrip() + " ..." for text in list(others)[:SHOWN])
    amount = f"{total} warnings of {kinds} kinds" if kinds > 1 else f"{total} warning{'s of one kind' if total > 1 else ''}"
    return f"TensorRT gave {amount}; --verbose shows {'them' if total > 1 else 'it'}: {examples}"


def times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
