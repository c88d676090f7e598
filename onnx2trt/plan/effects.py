"""What each flag does with each kind of library, as data."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import Enum

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.plan.arguments import build_parser
from onnx2trt.plan.precision_arguments import WRITTEN


class Effect(Enum):
    APPLIED = "applied"
    TRANSLATED = "translated"  # reached by another means, said
    NO_EFFECT = "no effect"  # harmless to ignore, said
    REFUSED = "refused"  # cannot be had here: exit 4


@dataclass(frozen=True)
class Cell:
    effect: Effect
    note: str


def _applied(note: str) -> Cell:
    return Cell(Effect.APPLIED, note)


def _translated(note: str) -> Cell:
    return Cell(Effect.TRANSLATED, note)


def _no_effect(note: str) -> Cell:
    return Cell(Effect.NO_EFFECT, note)


def _refused(note: str) -> Cell:
    return Cell(Effect.REFUSED, note)


# Columns of the table: TensorRT 8.6 to 10 (weak typing), TensorRT 11 (strong typing), TensorRT-RTX (strong typing).
COLUMNS = ("weak", "strong", "rtx")

_TYPED_GRAPH = _translated("the network is strongly typed: the precision is written into the ONNX graph")

# Most flags that every column applies in the same way have no row. A row is looked up only for a flag that was typed.
TABLE: dict[str, dict[str, Cell]] = {
    "--gpu-arch": {
        "weak": _refused("TensorRT builds for the GPU of this machine; --gpu-arch goes with --backend tensorrt-rtx"),
        "strong": _refused("TensorRT builds for the GPU of this machine; --gpu-arch goes with --backend tensorrt-rtx"),
        "rtx": _applied("set_compute_capability"),
    },
    "--layer-precisions": {
        "weak": _applied("precision and output types of the layers"),
        "strong": _TYPED_GRAPH,
        "rtx": _TYPED_GRAPH,
    },
    "--disable-strict-types": {
        "weak": _applied("no precision constraints"),
        "strong": _translated("strict types left TensorRT: no layer is kept in FP32 when the ONNX is converted"),
        "rtx": _translated("strict types left TensorRT: no layer is kept in FP32 when the ONNX is converted"),
    },
    "--precision-constraints": {
        "weak": _applied("OBEY_ or PREFER_PRECISION_CONSTRAINTS, or neither"),
        "strong": _translated("the types written into the ONNX are always obeyed; none writes no FP32 layers"),
        "rtx": _translated("the types written into the ONNX are always obeyed; none writes no FP32 layers"),
    },
    "--strongly-typed": {
        "weak": _applied("a strongly typed network"),
        "strong": _no_effect("this library has only strongly typed networks"),
        "rtx": _no_effect("this library has only strongly typed networks"),
    },
    "--quantization": {
        "weak": _applied("TensorRT's calibrator, or Q/DQ"),
        "strong": _applied("Q/DQ"),
        "rtx": _applied("Q/DQ"),
    },
    "--metric": dict.fromkeys(COLUMNS, _applied("compares the outputs, whatever has built the engine")),
    "--min-int8-share": dict.fromkeys(COLUMNS, _applied("judges the INT8 layers, whatever has built them")),
    "--io-types": {
        "weak": _applied("types of the network's inputs and outputs"),
        "strong": _TYPED_GRAPH,
        "rtx": _TYPED_GRAPH,
    },
    "--tactic-sources": {
        "weak": _applied("set_tactic_sources"),
        "strong": _applied("set_tactic_sources"),
        "rtx": _no_effect("TensorRT-RTX compiles its kernels on the target GPU and has no optional tactic sources"),
    },
    "--timing-cache": {
        "weak": _applied("timing cache of the builder config"),
        "strong": _applied("timing cache of the builder config"),
        "rtx": _no_effect("TensorRT-RTX times nothing at build time"),
    },
    "--dla-core": {
        "weak": _applied("default device DLA, GPU_FALLBACK"),
        "strong": _refused("a DLA needs weak typing; it left TensorRT with version 11"),
        "rtx": _refused("TensorRT-RTX has no DLA"),
    },
    "--plugins": {
        "weak": _applied("loaded into the plugin registry"),
        "strong": _applied("loaded into the plugin registry"),
        "rtx": _refused("TensorRT-RTX takes no plugin libraries"),
    },
    "--version-compatible": {
        "weak": _applied("BuilderFlag.VERSION_COMPATIBLE"),
        "strong": _applied("BuilderFlag.VERSION_COMPATIBLE"),
        "rtx": _refused("TensorRT-RTX comes without the lean runtime that such engines carry"),
    },
    "--hardware-compatibility-level": {
        "weak": _applied("hardware_compatibility_level"),
        "strong": _applied("hardware_compatibility_level"),
        "rtx": _refused("a TensorRT-RTX engine is portable already; --gpu-arch names its targets"),
    },
    "--triton-repository": {
        **dict.fromkeys(COLUMNS, _applied("a tensorrt_plan of Triton")),
        "rtx": _refused("Triton's TensorRT backend does not load engines of TensorRT-RTX; build with --backend tensorrt"),
    },
    "--disable-tactic-sources": {
        "weak": _applied("set_tactic_sources(0)"),
        "strong": _applied("set_tactic_sources(0)"),
        "rtx": _no_effect("TensorRT-RTX compiles its kernels on the target GPU and has no optional tactic sources to switch off"),
    },
}


def column(backend: str, weak_typing: bool) -> str:
    """The table's column of a library."""
    if backend == "tensorrt-rtx":
        return "rtx"
    return "weak" if weak_typing else "strong"


OF_THE_DOOR = {"calibrate": ("precision",)}  # what a door sets by itself


@functools.cache
def _actions() -> tuple:
    """Of the parser, which takes milliseconds to make."""
    return tuple(build_parser()._actions)


def typed_flags(args) -> list[str]:
    """The flags whose value differs from the default, by their long name; of a door, those that it takes."""
    typed = []
    for action in _actions():
        if action.dest not in ("help", *args.named, *OF_THE_DOOR.get(args.door, ())) and getattr(args, action.dest) != action.default:
            typed.append(max(action.option_strings, key=len))
    return typed


def effects_of(args, backend: str, weak_typing: bool) -> tuple[tuple[str, Cell], ...]:
    """(flag, cell) of the typed flags that are translated or have no effect here.

    Args:
        weak_typing: the library has it; --strongly-typed and the precisions in WRITTEN then ask for the other column.

    Raises:
        ConversionError: MACHINE, naming every typed flag that this library refuses.
    """
    native = column(backend, weak_typing)
    asked = column(backend, weak_typing and not (args.strongly_typed or args.precision in WRITTEN))
    cells = [(flag, TABLE[flag][native if flag == "--strongly-typed" else asked]) for flag in typed_flags(args) if flag in TABLE]
    refused = [f"{flag}: {cell.note}" for flag, cell in cells if cell.effect is Effect.REFUSED]
    if refused:
        raise ConversionError("not possible with this library: " + "; ".join(refused), code=ExitCode.MACHINE)
    return tuple((flag, cell) for flag, cell in cells if cell.effect is not Effect.APPLIED)
