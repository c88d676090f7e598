"""What all parsers of this tool have in common. Standard library only, so that --help answers at once."""

from __future__ import annotations

import argparse
import os
import re
import sys

from onnx2trt.base.errors import ExitCode
from onnx2trt.base.words import printable
from onnx2trt.plan.argument_words import flag_of

EXIT_CODES = f"""\
exit codes (the code names the thing at fault):
  {ExitCode.OK:>3}  done               {ExitCode.UNFORESEEN:>3}  unforeseen
  {ExitCode.USAGE:>3}  flags              {ExitCode.MODEL:>3}  the ONNX file
  {ExitCode.MACHINE:>3}  machine, library   {ExitCode.CALIBRATION:>3}  calibration data or cache
  {ExitCode.BUILD:>3}  build              {ExitCode.VALIDATION:>3}  validation, accuracy, test data
  {ExitCode.OUTPUT:>3}  output files       {ExitCode.SIGINT}, {ExitCode.SIGTERM}  interrupted
"""


ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


# what the user types: the door in a clone, else the command that the installation brings
PROGRAM = "onnx2trt.py" if os.path.isfile(os.path.join(ROOT, "onnx2trt.py")) else "onnx2trt"


COMMAND = ("python", PROGRAM) if PROGRAM.endswith(".py") else (PROGRAM,)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """argparse makes one for every flag, and each would ask the terminal again (and load shutil for it)."""

    columns = 0

    def __init__(self, prog: str):
        if not _Formatter.columns:
            _Formatter.columns = _terminal_columns()
        super().__init__(prog, width=_Formatter.columns - 2)


def _terminal_columns() -> int:
    """As shutil.get_terminal_size has it: COLUMNS, else the terminal, else 80."""
    try:
        columns = int(os.environ["COLUMNS"])
    except (KeyError, ValueError):
        columns = 0
    if columns <= 0:
        try:
            columns = os.get_terminal_size(sys.__stdout__.fileno()).columns
        except (AttributeError, ValueError, OSError):
            columns = 0
    return columns if columns > 0 else 80


ONE_MODEL = "; one model is taken, and images stand behind a flag, as in --validate test.jpg"


class Parser(argparse.ArgumentParser):
    """A parser that takes one model without its flag, and proposes a flag for a misspelt one.

    Attributes:
        problem: what it has refused, in words; empty before.
    """

    problem = ""

    def parse_args(self, args=None, namespace=None):
        """As argparse does, but for the words that no flag takes: argparse loses a positional argument that stands behind a flag."""
        parsed, left = self.parse_known_args(args, namespace)
        unknown = next((word for word in left if word.startswith("-") and len(word) > 1), None)
        if unknown is not None:
            self.error(f"unrecognized arguments: {' '.join(left[left.index(unknown) :])}{self._meant(unknown)}")
        if len(left) == 1 and parsed.door is None and parsed.onnx is None and parsed.inspect is None:
            parsed.onnx = left.pop()
        if left:
            self.error(f"unrecognized arguments: {' '.join(left)}" + ONE_MODEL * (parsed.door is None and parsed.inspect is None))
        if parsed.onnx is None and parsed.inspect is None:
            self.error("one of the arguments --onnx --inspect is required: name the model, as in " + " ".join((*COMMAND, "model.onnx")))
        return _resolved(self, parsed)

    def error(self, message: str):
        self.problem = message
        super().error(printable(message))

    def _meant(self, word: str) -> str:
        """The flag that the user may have meant, as a question; empty where none is near."""
        flag = "--" + word.partition("=")[0].lstrip("-").replace("_", "-")
        known = [option for option in self._option_string_actions if option.startswith("--")]
        if flag[2:].lower() in OTHER_NAMES:
            return f"; did you mean {OTHER_NAMES[flag[2:].lower()]}?"
        from difflib import get_close_matches

        by_lower = {option.lower(): option for option in known}
        begun = [option for option in known if len(flag) > 4 and option.startswith(flag.lower())]
        found = begun or [by_lower[near] for near in get_close_matches(flag.lower(), by_lower, 1, 0.75)]
        return f"; did you mean {' or '.join(found[:3])}?" if found else ""


# names that other tools have for a flag, in small letters, with hyphens -> ours
OTHER_NAMES = {
    "fp16": "--precision fp16",
    "half": "--precision fp16",
    "bf16": "--precision bf16",
    "fp32": "--precision fp32",
    "int8": "--precision int8",
    "fp8": "--precision fp8",
    "best": "--precision best",
    "model": "--onnx",
    "engine": "--output",
    "saveengine": "--output",
    "loadengine": "--validate-only",
    "minshapes": "--min-shapes",
    "optshapes": "--opt-shapes",
    "maxshapes": "--max-shapes",
    "shapes": "--opt-shapes",
    "input-shape": "--opt-shapes",
    "size": "--imgsz",
    "img-size": "--imgsz",
    "image-size": "--imgsz",
    "batch": "--max-batch-size",
    "batch-size": "--max-batch-size",
    "maxbatch": "--max-batch-size",
    "workspace": "--workspace-size",
    "calib": "--calibration-cache or --calibration-dir",
    "calib-cache": "--calibration-cache",
    "calib-dir": "--calibration-dir",
    "data": "--calibration-dir or --validate",
    "timingcachefile": "--timing-cache",
    "usedlacore": "--dla-core",
    "dlacore": "--dla-core",
    "debug": "--verbose",
}


def _resolved(parser: Parser, parsed: argparse.Namespace) -> argparse.Namespace:
    """--validate is --validation-dir for a folder, and --test-image for anything else; messages name it as it was typed."""
    for path in parsed.validate:
        dest = "validation_dir" if os.path.isdir(path) else "test_image"
        if getattr(parsed, dest) is not None:
            other = parsed.named.get(dest) or flag_of(dest)
            parser.error(f"--validate {path}: {other} names {getattr(parsed, dest)} already; one file and one folder can be given")
        setattr(parsed, dest, path)
        parsed.named = {**parsed.named, dest: "--validate"}
    return parsed


class Help(argparse.Action):
    """Print something, and end: the help of the parser, of another one made from it, or a text."""

    def __init__(self, option_strings, dest, parser=None, text=None, help=None):
        super().__init__(option_strings, "help", nargs=0, default=argparse.SUPPRESS, help=help)
        self._parser, self._text = parser, text

    def __call__(self, parser, namespace, values, option_string=None):
        shown = self._text() if self._text else (self._parser(parser) if self._parser else parser).format_help()
        sys.stdout.write(shown)  # argparse's own way hides that it could not be written
        sys.stdout.flush()
        parser.exit()


def version() -> str:
    return f"onnx2trt {sys.modules['onnx2trt'].__version__}\n"  # importing it here would be an arrow upwards


def new_parser(prog: str, usage: str, description: str, epilog: str, add_help: bool = True) -> Parser:
    """A parser without flags, of the kind that this tool has."""
    parser = Parser(
        prog=prog,
        usage=usage,
        description=description,
        epilog=epilog,
        formatter_class=_Formatter,
        add_help=add_help,
        allow_abbrev=False,  # an abbreviation in a script would change its meaning when a flag is added
    )
    parser._negative_number_matcher = re.compile(r"-\.?\d")  # argparse takes -0.5,-0.5 and -1e-3 for flags
    return parser
