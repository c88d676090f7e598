"""The command: arguments in, exit code out. One process supervises another: this one knows arguments, signals and file names.

What a run needs is loaded where it is needed, so that --help and argument errors answer at once.
"""

from __future__ import annotations

import re
import sys

from onnx2trt.base.streams import deliver, needs_stdout, open_streams, say, undelivered
from onnx2trt.base.words import error_text, printable
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
    open_streams()
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return _command(arguments, prog)
    except Exception as error:  # the boundary: whatever it is, the user gets a sentence and a code
        from onnx2trt.base.errors import unforeseen

        return _said(unforeseen(error))


def _command(arguments: list[str], prog: str) -> int:
    parser, words = _parser_for(arguments, prog)
    try:
        args = parser.parse_args(words)
    except SystemExit:
        if parser.problem:
            return _refused(parser.problem, words)
        raise  # --help and the like
    except OSError as error:  # --help and the like, too
        return _said(undelivered(error))
    problem = _system_problem()  # from here on, what --help has no need of
    if problem:
        _said(problem)
        return _without_run(problem, args.json)
    from onnx2trt.plan.rules import flag_problem
    from onnx2trt.process.channel import attach

    channel = attach()
    if channel is not None:
        from onnx2trt.worker import work

        return work(args, channel)
    problem = flag_problem(args)
    if problem:
        try:
            parser.error(problem)
        except SystemExit:
            return _refused(problem, words)
    if lost := needs_stdout(args.json):
        return _said(lost)
    from onnx2trt.supervised import run_supervised

    return _deliver(args, run_supervised(arguments, args.json))


def _parser_for(arguments: list[str], prog: str):
    """(the parser of the whole job or of one part of it, the words that it shall parse)"""
    if arguments and not arguments[0].startswith("-"):
        from onnx2trt.plan.door_arguments import DOORS, build_door_parser

        if arguments[0] in DOORS:
            return build_door_parser(arguments[0], prog), arguments[1:]
    return build_parser(), arguments


def _refused(problem: str, words: list[str]) -> int:
    """Flags that are wrong: the parser has said so; --json, wherever it stands, gets the same.

    Returns:
        The exit code.
    """
    from onnx2trt.base.errors import ConversionError, ExitCode

    named = [word[7:] if word.startswith("--json=") else after for word, after in zip(words, [*words[1:], ""]) if word.startswith("--json")]
    hint = "--help shows the flags of every day, --help-all all of them."
    return _without_run(ConversionError(problem, hint=hint, code=ExitCode.USAGE), named[-1] if named else None)


def _without_run(error, json_path: str | None) -> int:
    """Write the result of a run that has not begun, where --json asks for it.

    Returns:
        The exit code.
    """
    if not json_path or json_path.startswith("--"):
        return int(error.code)
    from onnx2trt.report.result import Result, to_json
    from onnx2trt.supervised import Ended, write_json

    result = Result()
    result.fail(error)
    result.seal()
    if json_path == "-":
        _said(deliver(to_json(result)))
    _said(write_json(json_path, Ended(result)))
    return int(error.code)


def _system_problem():
    from onnx2trt.base.errors import ConversionError
    from onnx2trt.base.system import check_system

    try:
        check_system()
    except ConversionError as error:
        return error
    return None


def _deliver(args, ended) -> int:
    """Write --json unless it is written already, print the table (stdout; --quiet: nothing) or the error (stderr)."""
    from onnx2trt.report.result import to_json
    from onnx2trt.supervised import write_json

    result = ended.result
    for warning in () if args.quiet else ended.lost:
        say(printable(f"warning: {warning}"))
    if result.error:
        say(error_text(result.error.message, result.error.hint))
    unwritten = _said(write_json(args.json, ended))
    shown = ended.table if sys.stdout.isatty() else ANSI.sub("", ended.table)
    lost = _said(deliver(to_json(result) if args.json == "-" else "" if args.quiet else shown))
    if args.json == "-" and not args.quiet:
        print(ended.table, file=sys.stderr, flush=True)
    return result.exit_code or unwritten or lost


def _said(error) -> int:
    """Print the error, if there is one.

    Returns:
        The exit code.
    """
    if error is None:
        return 0
    say(error_text(error.message, error.hint))
    return int(error.code)
