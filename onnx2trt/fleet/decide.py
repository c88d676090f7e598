"""Which of many conversions would only repeat an earlier one (--skip-unchanged): one process looks at all, so that the libraries load once.

    python -m onnx2trt.fleet.decide LIFELINE < commands

stdin has a list of commands as JSON; stdout gets a line for each that is unchanged: its place in the list, and the earlier result.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import replace

from onnx2trt.plan.arguments import build_parser
from onnx2trt.process.channel import Channel


def main(lifeline: int) -> int:
    os.set_inheritable(lifeline, False)
    threading.Thread(target=_end_with, args=(lifeline,), name="lifeline", daemon=True).start()
    commands = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print to stdout at will
    parser, nobody = build_parser(), Channel(os.open(os.devnull, os.O_WRONLY))
    for place, words in enumerate(commands):
        former = find_former(parser.parse_args(words), nobody)
        if former is not None:
            answers.write(json.dumps({"place": place, "result": former.to_dict()}) + "\n")
            answers.flush()
    answers.flush()
    os._exit(0)  # not through the teardown of libraries that may crash or hang in it


def find_former(args, nobody: Channel):
    """The result that a command would repeat; None where there is none, or where the command itself shall say what is wrong.

    Args:
        args: the parsed command line, with --output.
        nobody: takes what a run has to say.
    """
    if not (os.path.isfile(args.output) and os.path.isfile(args.output + ".json")):  # before anything is loaded
        return None
    if args.report and not os.path.isfile(args.report):
        return None
    from onnx2trt.conversion.run import Run
    from onnx2trt.pipeline import convert
    from onnx2trt.report.console import Console

    try:
        former = convert.find_former(args, Run(nobody, Console(quiet=True)))
    except Exception:  # a ConversionError or not: the command meets it again, and explains it
        return None
    return former and replace(former, skipped=True)


def _end_with(lifeline: int) -> None:
    os.read(lifeline, 1)  # nobody writes to it
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
