"""The child: runs the pipeline and hands the parent its result, whatever happens."""

from __future__ import annotations

import os
import shutil
import sys
import traceback

from onnx2trt.base.errors import ConversionError, ExitCode, unforeseen
from onnx2trt.base.system import deepen_stack
from onnx2trt.base.words import printable
from onnx2trt.process.channel import Channel

# The products of matrices are many and small: with threads of their own they mostly wait for each other, and for ONNX Runtime's
# (fitting INT8 weights of the example on 2 busy cores: 20.9 s with OpenBLAS's 2 threads, 5.6 s with 1)
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
RESERVE = 2**24  # bytes of addresses that are given back where something has failed, to say so: memory may be what was missing
TABLE_WIDTH = 110  # columns of the table where there is no terminal to ask


def work(args, channel: Channel) -> None:
    """Do what the arguments ask for; this process ends with it, and the parent knows why."""
    reserve = [bytearray(RESERVE)]
    try:
        _work(args, channel, reserve)
    except Exception as error:  # not even a result could be made: there is no memory, or a library is missing
        reserve.clear()
        try:
            if args.verbose:
                print(printable(traceback.format_exc()), file=sys.stderr)
            known = error if isinstance(error, ConversionError) else unforeseen(error)
            channel.failed(known.message, known.hint, int(known.code))
        except Exception:
            channel.exhausted()
        channel.leave(int(ExitCode.MACHINE))


def _work(args, channel: Channel, reserve: list) -> None:
    deepen_stack()
    for variable in BLAS_THREADS:  # read when numpy is loaded
        os.environ.setdefault(variable, "1")
    from onnx2trt.conversion.run import Run
    from onnx2trt.report.console import Console
    from onnx2trt.report.result import Result

    run, result = Run(channel, Console(args.verbose, args.quiet), keep_evidence=args.report is not None), Result()
    run.abort = lambda error: _end(args, result, run, error)
    try:
        with run.console.running("loading the libraries"):  # a second or two; on a cold or busy machine ten
            pipeline = _pipeline(args)
        pipeline(args, result, run)
    except Exception as error:  # the boundary: whatever it is, the user gets a sentence and a code
        reserve.clear()
        if args.verbose:
            print(printable(traceback.format_exc()), file=sys.stderr)
        error.with_traceback(None)  # what its frames hold is needed no more
        run.files.clear()
        run.files += run.rejected
        for _, kept in run.files:
            run.console.info(f"the engine is kept as {kept}")
        _end(args, result, run, error)
    _end(args, result, run)


def _pipeline(args):
    """What does the work: (args, result, run) -> None."""
    if args.door == "calibrate":
        from onnx2trt.pipeline.calibrate import calibrate

        return calibrate
    if args.door == "preprocess":
        from onnx2trt.pipeline.preprocess import preprocess

        return preprocess
    from onnx2trt.pipeline import convert, refit, validate

    if args.door == "validate":
        return validate.validate
    if args.inspect:
        return convert.inspect
    if args.refit:
        return refit.refit
    return validate.validate_engine if args.validate_only else convert.convert


def _end(args, result, run, error: BaseException | None = None) -> None:
    """Report, table, the last message to the parent, and the end of this process."""
    if error is not None:
        result.fail(error if isinstance(error, ConversionError) else unforeseen(error))
    if error is not None or not result.timings_s:  # else the pipeline has taken it, as it stands beside the engine
        result.take(**run.said())
    known = len(run.console.warnings)
    _write_report(args, result, run)
    result.warnings += run.console.warnings[known:]
    result.seal()  # once more: --json may name the file beside the engine
    channel, table = run.channel, ""
    if result.error is None:
        from onnx2trt.report.table import render

        table = render(result.to_dict(), shutil.get_terminal_size((TABLE_WIDTH, 0)).columns, color=sys.stderr.isatty())
    channel.done(result.to_dict(), run.files, table, run.optional)
    channel.leave(result.exit_code)


def _write_report(args, result, run) -> None:
    """The page of --report, of failed runs, too. A report that cannot be made takes no engine down."""
    if args.report is None:
        return
    run.channel.stage("report")
    try:
        from onnx2trt.report import html

        page = html.render(result.to_dict(), run.evidence, sys.argv[1:], _all_written(args, run))
        run.write_at_end(args.report, page, required=False)
    except Exception as error:
        known = error if isinstance(error, ConversionError) else unforeseen(error)
        if result.error is None or result.error.message != known.message:  # the reason of the failure is not the same one
            run.console.warn(f"there is no report: {known.message}")


def _all_written(args, run) -> list[str]:
    """Names of all files that this run writes, its report and the parent's --json included; relative ones in this folder."""
    names = [final for _, final in run.files] + list(run.written)
    names += [os.path.realpath(path) for path in (args.json, args.report) if path not in (None, "-")]
    return [name.removeprefix(os.path.join(os.getcwd(), "")) for name in dict.fromkeys(names)]
