"""The command: arguments in, exit code out. One process supervises another: this one knows arguments, signals and file names.

What a run needs is loaded where it is needed, so that --help and argument errors answer at once.
"""

from __future__ import annotations

import os
import re
import sys

from onnx2trt.plan.arguments import build_parser

ANSI = re.compile(r"\x1b\[[0-9;]*m")  # colours: the child that made the table sees only stderr


def main(argv: list[str] | None = None) -> int:
    """Parse, supervise, report.

    Returns:
        The exit code (base.errors.ExitCode).
    """
    arguments = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    args = parser.parse_args(arguments)
    from onnx2trt.plan.rules import flag_problem  # from here on, what --help has no need of
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


def _deliver(args, ended) -> int:
    """Write --json unless it is written already, print the table (stdout) or the error (stderr)."""
    from onnx2trt.report.result import to_json
    from onnx2trt.supervised import write_json

    result = ended.result
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
    text = "\n".join(lines).encode("utf-8", "backslashreplace").decode()
    print(text, file=sys.stderr, flush=True)
