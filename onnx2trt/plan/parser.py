"""What all parsers of this tool have in common. Standard library only, so that --help answers at once."""

from __future__ import annotations

import argparse
import os
import re
import sys

from onnx2trt.base.errors import ExitCode

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


def new_parser(prog: str, usage: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser without flags, of the kind that this tool has."""
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=usage,
        description=description,
        epilog=epilog,
        formatter_class=_Formatter,
        allow_abbrev=False,  # an abbreviation in a script would change its meaning when a flag is added
    )
    parser._negative_number_matcher = re.compile(r"-\.?\d")  # argparse takes -0.5,-0.5 and -1e-3 for flags
    return parser
