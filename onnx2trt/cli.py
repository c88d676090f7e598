"""onnx2trt: turn an ONNX model into a TensorRT engine that is proven to be what was asked for.

One process of this file supervises another: the parent knows arguments, signals and file names; the child runs the pipeline.
"""

from __future__ import annotations

import os
import re
import sys

from onnx2trt.base.errors import AccuracyError, ConversionError, ExitCode, unforeseen
from onnx2trt.plan.arguments import build_parser

# The products of matrices are many and small: with threads of their own they mostly wait for each other, and for ONNX Runtime's
# (fitting INT8 weights of the example on 2 busy cores: 20.9 s with OpenBLAS's 2 threads, 5.6 s with 1)
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ANSI = re.compile(r"\x1b\[[0-9;]*m")  # colours: the child that made the table sees only stderr
TABLE_WIDTH = 110  # columns of the table where there is no terminal to ask


def main(argv: list[str] | None = None) -> int:
    """Parse, supervise, report.

    Returns:
        The exit code (base.errors.ExitCode).
    """
    arguments = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    args = parser.parse_args(arguments)
    from onnx2trt.plan.rules import flag_problem
    from onnx2trt.process.channel import attach  # from here on, what --help has no need of

    channel = attach()
    if channel is not None:
        return _work(args, channel)
    problem = flag_problem(args)
    if problem:
        parser.error(problem)
    return _supervise(args, arguments)


def convert(args, run) -> str:
    """The pipeline, one line a stage. Heavy imports stand here, so that --help and argument errors need none of them.

    Returns:
        The status of the result.

    Raises:
        ConversionError: from any stage.
    """
    if args.inspect:
        from onnx2trt.stages import inspect as inspecting

        return inspecting.inspect(args.inspect, tuple(args.plugins), run)
    from onnx2trt.stages import preflight as planning
    from onnx2trt.stages import unchanged

    if args.validate_only:
        return revalidate(args, run)
    library, plan = planning.make_plan(args, run)
    job = planning.preflight(library, plan, run)
    former = unchanged.find_former(job, run) if plan.skip_unchanged else None
    if plan.dry_run:
        return "planned"
    if former:
        return unchanged.take(former, job, run)
    from onnx2trt.stages import build as building
    from onnx2trt.stages import prepare as precision
    from onnx2trt.stages import variants

    def make(job) -> variants.Made:
        prepared = precision.prepare_model(job, run)
        try:
            return _build_and_check(job, prepared, run)
        except AccuracyError as error:
            return _build_and_check(job, precision.prepare_again(job, prepared, error, run), run)

    made = variants.make_all(job, run, make, lambda job, prepared: _build_and_check(job, prepared, run))
    return building.write_outputs(job, made.prepared, made.built, made.status, run)


def _build_and_check(job, prepared, run):
    """From the prepared model to an engine that passed (stages.variants.Made)."""
    from onnx2trt.stages import build as building
    from onnx2trt.stages import read_back as reading
    from onnx2trt.stages import validate as checking
    from onnx2trt.stages.variants import Made

    built, prepared = building.build_engine(job, prepared, run)
    with reading.loaded_engine(job.library, job.plan, built.data, run, job.plan.build.version_compatible) as engine:
        try:
            reading.read_precision(job, prepared, built, engine, run)
            return Made(job, prepared, built, checking.check(job, prepared, engine, run))
        except ConversionError:
            building.keep_rejected(job.plan, built, run)
            raise


def revalidate(args, run) -> str:
    """The pipeline of --validate-only: an engine that was built elsewhere, on the machine where it will serve."""
    from onnx2trt.stages import preflight as planning
    from onnx2trt.stages import read_back as reading
    from onnx2trt.stages import validate as checking

    library, plan = planning.make_plan(args, run)
    data = planning.read_engine_file(plan, run)
    with reading.loaded_engine(library, plan, data, run) as engine:
        job = planning.preflight_engine(library, plan, engine, run)
        reading.describe_engine(job, engine, run)
        return checking.check(job, None, engine, run)


def _work(args, channel) -> int:
    """The child: run the pipeline and hand the parent its result, whatever happens."""
    for variable in BLAS_THREADS:  # read when numpy is loaded
        os.environ.setdefault(variable, "1")
    import shutil
    import traceback

    from onnx2trt.conversion.run import Run
    from onnx2trt.report.result import fail
    from onnx2trt.report.table import render

    run = Run(channel, args.verbose, args.quiet, args.report, args.json)
    error = None
    try:
        run.result["status"] = convert(args, run)
        run.result["exit_code"] = 0
    except Exception as raised:  # the boundary: whatever it is, the user gets a sentence and a code
        error = raised if isinstance(raised, ConversionError) else unforeseen(raised)
        if args.verbose:
            traceback.print_exc()
    if error is not None:
        run.result = fail(run.result, error)
        run.files = run.rejected
        for _, kept in run.files:
            run.console.info(f"the engine is kept as {kept}")
    run.write_report()
    undelivered = error is not None or (run.result["error"] and not run.files)  # the report could not be written
    table = "" if undelivered else render(run.result, shutil.get_terminal_size((TABLE_WIDTH, 0)).columns, color=sys.stderr.isatty())
    channel.done(run.result, run.files, table)
    channel.leave(run.result["exit_code"])


def _supervise(args, arguments: list[str]) -> int:
    """Run the pipeline in a child and tell the world how it ended."""
    import signal
    import time

    from onnx2trt.process.supervision import Interrupted, Supervisor, restore_terminal
    from onnx2trt.report.result import fail, new_result

    supervisor, started, table, written = Supervisor(), time.monotonic(), "", []

    def add_json(outcome: dict) -> list[tuple[str, str]]:
        """--json of a success, written before any file gets its name: where there is no room for it, none is replaced."""
        if outcome["result"]["exit_code"] == 0 and args.json and args.json != "-":
            written.append(_json_file(args.json, outcome["result"]))
        return [(temporary.path, temporary.final) for temporary in written]

    warning_flags = [part for option in sys.warnoptions for part in ("-W", option)]
    command = [sys.executable, *warning_flags, os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py"), *arguments]
    try:
        outcome = supervisor.run(command, add_json)
        result, table = outcome["result"], outcome["table"]
    except Interrupted as interrupt:
        name = signal.Signals(interrupt.signum).name
        error = ConversionError(f"interrupted by {name} during stage '{supervisor.stage}'", code=ExitCode(128 + interrupt.signum))
        result = fail(new_result(), error)
    except ConversionError as error:
        for temporary in written:
            temporary.discard()
        result, written = fail(new_result(), error), []
    if result["status"] == "failed":
        restore_terminal()
    result["timings_s"].setdefault("total", round(time.monotonic() - started, 3))
    return _deliver(args, result, table, bool(written))


def _json_file(path: str, result: dict):
    """A temporary beside --json, with all of it."""
    from onnx2trt.base import files
    from onnx2trt.report.result import to_json

    temporary = files.Temporary(path)
    try:
        temporary.write(to_json(result).encode())
    except ConversionError:
        temporary.discard()
        raise
    return temporary


def _deliver(args, result: dict, table: str, written: bool) -> int:
    """Write --json unless it is written already, print the table (stdout) or the error (stderr)."""
    from onnx2trt.base import files
    from onnx2trt.report.result import to_json

    if result["error"]:
        _print_error(result["error"])
    if args.json and args.json != "-" and not written:
        try:
            files.write_atomically(args.json, to_json(result).encode())
        except ConversionError as error:
            if error.message != result["error"]["message"]:
                _print_error({"message": error.message, "hint": error.hint})
    shown = table if sys.stdout.isatty() else ANSI.sub("", table)
    to_stdout = to_json(result) if args.json == "-" else shown
    try:
        sys.stdout.write(to_stdout)
        sys.stdout.flush()
        if args.json == "-":
            sys.stderr.write(table)
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return result["exit_code"]


def _print_error(error: dict) -> None:
    lines = [f"error: {error['message']}"] + ([f"hint: {error['hint']}"] if error["hint"] else [])
    text = "\n".join(lines).encode("utf-8", "backslashreplace").decode()
    print(text, file=sys.stderr, flush=True)
