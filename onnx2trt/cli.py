"""The command: arguments in, exit code out. One process supervises another: this one knows arguments, signals and file names.

What a run needs is loaded where it is needed, so that --help and argument errors answer at once.
"""

from __future__ import annotations

import os
import re
import sys

from onnx2trt.plan.arguments import build_parser

ANSI = re.compile(r"\x1b\[[0-9;]*m")  # colours: the child that made the table sees only stderr


def main(argv: list[str] | None = None, prog: str = "") -> int:
    """Parse, supervise, report.

    Args:
        argv: the words of the command line; the first one may name a part of the job (plan.door_arguments.DOORS).
        prog: the file that the user has started, where it does only a part of the job; for messages.

    Returns:
        The exit code (base.errors.ExitCode).
    """
    arguments = sys.argv[1:] if argv is None else argv
    parser, words = _parser_for(arguments, prog)
    args = parser.parse_args(words)
    problem = _system_problem()  # from here on, what --help has no need of
    if problem:
        _print_error(problem.message, problem.hint)
        return int(problem.code)
    from onnx2trt.plan.rules import flag_problem
    from onnx2trt.process.channel import attach

    channel = attach()
    if channel is not None:
        from onnx2trt.worker import work

        return work(args, channel)
    problem = flag_problem(args)
    if problem:
        parser.error(problem)
    from onnx2trt.supervised import run_supervised

    return _deliver(args, run_supervised(arguments, args.json))


def _parser_for(arguments: list[str], prog: str):
    """(the parser of the whole job or of one part of it, the words that it shall parse)"""
    if arguments and not arguments[0].startswith("-"):
        from onnx2trt.plan.door_arguments import DOORS, build_door_parser

        if arguments[0] in DOORS:
            return build_door_parser(arguments[0], prog), arguments[1:]
    return build_parser(), arguments


def _system_problem():
    from onnx2trt.base.errors import ConversionError
    from onnx2trt.base.system import check_system

    try:
        check_system()
    except ConversionError as error:
        return error
    return None


def _deliver(args, ended) -> int:
    """Write --json unless it is written already, print the table (stdout) or the error (stderr)."""
    from onnx2trt.report.result import to_json
    from onnx2trt.supervised import write_json

    result = ended.result
    for warning in () if args.quiet else ended.lost:
        _print(f"warning: {warning}")
    if result.error:
        _print_error(result.error.message, result.error.hint)
    problem = write_json(args.json, ended)
    if problem:
        _print_error(problem.message, problem.hint)
    shown = ended.table if sys.stdout.isatty() else ANSI.sub("", ended.table)
    to_stdout = to_json(result) if args.json == "-" else shown
    try:
        sys.stdout.write(to_stdout)
        sys.stdout.flush()
        if args.json == "-":
            sys.stderr.write(ended.table)
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return result.exit_code


def _print_error(message: str, hint: str) -> None:
    lines = [f"error: {message}"] + ([f"hint: {hint}"] if hint else [])
    _print("\n".join(lines))


def _print(text: str) -> None:
    print(text.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)
