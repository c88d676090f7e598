"""The command lines of the doors that do one part of the job: which of the whole job's flags each takes. Standard library only."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable

from onnx2trt.plan.arguments import build_parser
from onnx2trt.plan.parser import EXIT_CODES, PROGRAM, new_parser

ARRAY_SUFFIXES = (".npy", ".npz")  # of what preprocess writes

SHAPES = ("--imgsz", "--max-batch-size", "--min-shapes", "--opt-shapes", "--max-shapes", "--shape-values", "--bind-input")
IMAGES = ("--input-range", "--mean", "--std", "--color", "--resize")


def build_door_parser(door: str, prog: str = "") -> argparse.ArgumentParser:
    """The parser of one of DOORS. Its flags are the whole job's own; flags that it does not take have the whole job's defaults.

    Args:
        prog: what the user has typed, for messages; empty: the whole command with the name of the part.
    """
    whole = build_parser()
    parser = DOORS[door](whole, prog or f"{PROGRAM} {door}")
    missing = {action.dest: action.default for action in whole._actions if action.dest != "help"}
    own = {action.dest for action in parser._actions}
    defaults = {dest: default for dest, default in missing.items() if dest not in own}
    named = {action.dest: action.metavar for action in parser._get_positional_actions()}
    parser.set_defaults(**{**defaults, **parser._defaults}, door=door, named=named)
    return parser


def image_beside(array: str) -> str:
    """The file in which preprocess shows the image that it has written as an array."""
    return os.path.splitext(array)[0] + ".png"


def _calibrate(whole: argparse.ArgumentParser, prog: str) -> argparse.ArgumentParser:
    parser = new_parser(
        prog,
        f"{prog} --onnx FILE --calibration-dir DIR --calibration-cache FILE [options] | --help",
        "Find what INT8 takes, and keep it in a calibration cache for builds elsewhere. Needs neither TensorRT nor a GPU.",
        f"{EXIT_CODES}\nexample:\n  {_command(prog)} --onnx model.onnx --calibration-dir images/ --calibration-cache model.cache\n",
    )
    parser.set_defaults(precision="int8")
    _change(whole, "--onnx", required=True)
    _change(whole, "--calibration-dir", required=True)
    _change(
        whole,
        "--calibration-cache",
        required=True,
        help="the TensorRT calibration cache to write, with two files beside it (.json, .fit.npz); older ones are replaced",
    )
    _change(whole, "--no-validate", help="measure no accuracy: no layer stays FP16 for it")
    _take(parser, whole, "model and cache", ("--onnx", "--calibration-cache"))
    _take(parser, whole, "inputs and shapes", SHAPES)
    data = ("--calibration-dir", "--calibration-samples", "--calibration-method", "--quantization-effort")
    _take(parser, whole, "calibration", data)
    _take(parser, whole, "image preprocessing", IMAGES)
    accuracy = ("--validation-dir", "--max-accuracy-drop", "--metric", "--min-int8-share", "--no-validate")
    title = "choice of layers (a build takes it over from the cache where these flags are the same)"
    _take(parser, whole, title, (*accuracy, "--layer-precisions", "--disable-strict-types"))
    _take_messages(parser, whole)
    return parser


def _preprocess(whole: argparse.ArgumentParser, prog: str) -> argparse.ArgumentParser:
    parser = new_parser(
        prog,
        f"{prog} IMAGE --onnx FILE [-o FILE.npy] [options] | --help",
        "Show what the network really gets: the array, and an image of it to look at.",
        f"{EXIT_CODES}\nexample:\n  {_command(prog)} image.jpg --onnx model.onnx -o x.npy --mean 0.485 0.456 0.406\n",
    )
    _change(whole, "--onnx", required=True)
    _change(
        whole,
        "--output",
        metavar="FILE.npy",
        help="write the array, as .npy or .npz, and what it shows as an image of the same name (.png) (default: nothing is written)",
    )
    group = parser.add_argument_group("model and data")
    group.add_argument("test_image", metavar="IMAGE", help="the image; or .npz / .npy, of which the arrays are described")
    _take_into(group, whole, ("--onnx", "--output"))
    _take(parser, whole, "inputs and shapes", SHAPES)
    _take(parser, whole, "image preprocessing", IMAGES)
    _take_messages(parser, whole)
    return parser


def _validate(whole: argparse.ArgumentParser, prog: str) -> argparse.ArgumentParser:
    parser = new_parser(
        prog,
        f"{prog} CANDIDATE --onnx FILE [options] | --help",
        "Compare an engine, or a prepared ONNX of any tool (Q/DQ, FP16), with the model that it was made from.",
        f"{EXIT_CODES}\nexample:\n  {_command(prog)} candidate.onnx --onnx model.onnx --validation-dir images/\n",
    )
    _change(whole, "--onnx", required=True, help="the original ONNX model")
    _change(whole, "--backend", help="library to load an engine with (default: auto: the one that the engine is for)")
    group = parser.add_argument_group("models")
    about = "the engine, which is executed on the GPU; or a prepared ONNX, which is computed on the CPU"
    group.add_argument("validate_only", metavar="CANDIDATE", help=about)
    _take_into(group, whole, ("--onnx", "--backend", "--plugins"))
    _take(parser, whole, "inputs and shapes", SHAPES)
    _take(parser, whole, "image preprocessing", IMAGES)
    accuracy = (
        "--validate",
        "--test-image",
        "--validation-dir",
        "--max-accuracy-drop",
        "--metric",
        "--min-int8-share",
        "--require-execution",
    )
    _take(parser, whole, "validation", accuracy)
    _take_messages(parser, whole, "--report", "--detector")
    return parser


DOORS = {"calibrate": _calibrate, "preprocess": _preprocess, "validate": _validate}  # first word of the command -> its parser


def _change(whole: argparse.ArgumentParser, flag: str, **attributes) -> None:
    """What a flag of the whole job is for this door."""
    vars(whole._option_string_actions[flag]).update(attributes)


def _command(prog: str) -> str:
    return f"python {prog}" if prog.split()[0].endswith(".py") else prog


def _take(parser: argparse.ArgumentParser, whole: argparse.ArgumentParser, title: str, flags: Iterable[str]) -> None:
    _take_into(parser.add_argument_group(title), whole, flags)


def _take_into(group, whole: argparse.ArgumentParser, flags: Iterable[str]) -> None:
    for flag in flags:
        group._add_action(whole._option_string_actions[flag])


def _take_messages(parser: argparse.ArgumentParser, whole: argparse.ArgumentParser, *more: str) -> None:
    group = parser.add_argument_group("result and messages")
    _take_into(group, whole, ("--json", *more))
    _take_into(group.add_mutually_exclusive_group(), whole, ("--verbose", "--quiet"))
