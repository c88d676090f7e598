"""python -m onnx2trt.fleet PLAN: read the plan, see what is done already, do the rest, say what became of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time

from onnx2trt.base.errors import ConversionError
from onnx2trt.base.files import check_writable, write_atomically
from onnx2trt.base.side_files import check_replaceable
from onnx2trt.base.signals import ENDING
from onnx2trt.base.streams import deliver, needs_stdout, open_streams, say
from onnx2trt.base.system import check_system
from onnx2trt.base.words import error_text
from onnx2trt.fleet import node
from onnx2trt.fleet.cluster import Cluster, check_address
from onnx2trt.fleet.outcome import Outcome, Record
from onnx2trt.fleet.plan_file import FleetPlan, read_plan
from onnx2trt.fleet.tasks import tasks_of

TABLE_WIDTH = 110  # columns of the table where there is no terminal to ask
DESCRIPTION = "Convert many models for many GPUs, on this machine or on a Ray cluster. docs/fleet.md describes the plan."
EPILOG = """\
exit codes: 0 where everything is built or unchanged, else that of the first failure in the order of the plan (models, then targets);
2 a plan that is wrong, 4 no Ray or no node, 130 and 143 interrupted. The other codes are those of onnx2trt.py.
"""


class Interrupted(BaseException):
    """A signal asked us to stop; no `except Exception` on the way may take it."""


def main(argv: list[str] | None = None) -> int:
    open_streams()
    args = build_parser().parse_args(argv)
    json_path = args.json and (args.json if args.json == "-" else os.path.abspath(args.json))
    try:
        check_system()
        if lost := needs_stdout(json_path):
            raise lost
        check_address(args.address)
        plan = read_plan(args.plan)
        os.chdir(plan.folder)  # where the paths of its flags begin
        record = Record(plan.path, tasks_of(plan))
        if json_path and json_path != "-":
            check_replaceable(json_path)  # it may name the plan, or a model
            check_writable(json_path)
    except ConversionError as error:
        return _refused(error)
    started = time.monotonic()
    problem = _follow(plan, record, args)
    record.seconds = time.monotonic() - started
    code = _deliver(record, json_path)
    return _refused(problem) if problem and not record.interrupted else code


def build_parser():
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m onnx2trt.fleet",
        description=DESCRIPTION,
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("plan", metavar="PLAN", help="the YAML file")
    parser.add_argument(
        "--address", help="of the Ray cluster that this machine is a node of: auto, or HOST:PORT of its head (default: Ray is started here)"
    )
    parser.add_argument("--json", metavar="FILE", help="what became of every conversion, as JSON; - for stdout")
    parser.add_argument("--dry-run", action="store_true", help="check plan and flags, and say what would be built; needs no Ray")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return parser


def _follow(plan: FleetPlan, record: Record, args) -> ConversionError | None:
    """Do all of it, or as much as signals let us.

    Returns:
        Why nothing could be started.
    """
    from onnx2trt.fleet.display import Progress

    try:
        with _heeding_signals(record), Progress(record, args.quiet) as progress:
            if args.address is None:
                _take_unchanged(plan, record, progress)
            if args.dry_run:
                record.outcomes.update(dict.fromkeys(record.left(), Outcome("planned")))
            if record.left():
                progress.say("starting Ray" if args.address is None else f"connecting to Ray at {args.address}")
                # once more: Ray has put its own handlers in their place, and makes a SystemError of what they raise
                with Cluster(args.address) as cluster, _heeding_signals(record, at_once=False):
                    cluster.run(plan, record, progress.tell)
    except Interrupted:
        pass
    except ConversionError as error:
        return error
    return None


def _take_unchanged(plan: FleetPlan, record: Record, progress) -> None:
    """What an earlier run has left as it would become again, seen in one process for all of it: without Ray, and without any build."""
    for hidden in (True, False):
        places = [place for place in record.left() if _may_be_unchanged(record, place, hidden)]
        if places:
            commands = [record.tasks[place].arguments for place in places]
            for number, outcome in node.find_unchanged(plan.folder, commands, hidden).items():
                record.outcomes[places[number]] = outcome
                progress.tell(places[number], outcome)


def _may_be_unchanged(record: Record, place: int, hidden: bool) -> bool:
    task = record.tasks[place]
    return task.target.hides_gpus == hidden and task.decided_beforehand and os.path.isfile(task.engine)


@contextlib.contextmanager
def _heeding_signals(record: Record, at_once: bool = True):
    """SIGINT, SIGTERM and SIGHUP end the block; afterwards they wait until we have ended.

    Args:
        at_once: by an exception; else the block looks at `record.interrupted` itself.
    """
    caught = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]

    def interrupt(signum, _frame):
        for number in caught:  # a second Ctrl-C must not break the cleaning up
            signal.signal(number, signal.SIG_IGN)
        record.interrupted = int(signum)
        if at_once:
            raise Interrupted

    for number in caught:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_IGN)


def _deliver(record: Record, json_path: str | None) -> int:
    """Write table and JSON.

    Returns:
        The exit code.
    """
    from onnx2trt.fleet.display import render

    width = shutil.get_terminal_size((TABLE_WIDTH, 0)).columns
    lost = deliver(record.to_json() if json_path == "-" else render(record, width, sys.stdout.isatty()))
    if json_path == "-":
        print(render(record, width, sys.stderr.isatty()), end="", file=sys.stderr, flush=True)
    elif json_path:
        try:
            write_atomically(json_path, record.to_json().encode())
        except ConversionError as error:
            return record.exit_code or _refused(error)
    return record.exit_code or (_refused(lost) if lost else 0)


def _refused(error: ConversionError) -> int:
    say(error_text(error.message, error.hint))
    return int(error.code)


if __name__ == "__main__":
    sys.exit(main())
