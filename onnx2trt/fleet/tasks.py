"""From a plan to the conversions: the words of each command, checked by the command's own parser before anything starts."""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.fleet.plan_file import FleetPlan, Model, Target
from onnx2trt.plan.arguments import build_parser
from onnx2trt.plan.rules import flag_problem

# what the plan says by its own keys, or what is no conversion
OWN = {
    "--onnx": "models",
    "--output": "output",
    "-o": "output",
    "--backend": "targets",
    "--gpu-arch": "targets",
    "--json": "--json of the fleet; each engine has its side file",
    "--inspect": "",
    "--validate-only": "",
    "--refit": "",
    "--dry-run": "--dry-run of the fleet",
}


@dataclass(frozen=True)
class Task:
    """One conversion: one model for one target."""

    model: str
    target: Target
    onnx: str
    engine: str  # absolute
    arguments: tuple[str, ...]  # of the command, in the plan's folder
    report: str | None = None  # --report, absolute
    decided_beforehand: bool = True  # whether it can be seen from outside that nothing is to be done

    @property
    def label(self) -> str:
        return f"{self.model} for {self.target.name}"


def tasks_of(plan: FleetPlan) -> tuple[Task, ...]:
    """All conversions in the order of the plan, model by model. To be called in the plan's folder, where its relative paths begin.

    Raises:
        ConversionError: USAGE, for flags that are wrong by themselves and for files that two conversions would write.
    """
    parser = build_parser()
    tasks = []
    for model in plan.models:
        for target in plan.targets:
            if model.targets is None or target.name in model.targets:
                tasks.append(_task(plan, model, target, parser))
    _refuse_common_files(plan, tasks)
    return tuple(tasks)


def _task(plan: FleetPlan, model: Model, target: Target, parser) -> Task:
    def filled(text: str) -> str:
        return text.replace("{model}", model.name).replace("{target}", target.name)

    flags = tuple(filled(word) for word in (*plan.flags, *target.flags, *model.flags))
    for word in flags:
        if word.partition("=")[0] in OWN:
            said_by = OWN[word.partition("=")[0]]
            hint = f"The plan says it by {said_by}." if said_by else "A fleet converts; use the command itself for that."
            raise ConversionError(f"{_where(plan, model, target)}: {word} cannot stand among the flags", hint=hint, code=ExitCode.USAGE)
    engine = os.path.abspath(filled(plan.output))
    archs = ("--gpu-arch", *target.gpu_archs) if target.gpu_archs else ()
    words = (*archs, "--onnx", model.onnx, "--output", engine, "--backend", target.backend, "--skip-unchanged", *flags)
    args = _parsed(parser, words, _where(plan, model, target))
    report = os.path.abspath(args.report) if args.report else None
    return Task(model.name, target, os.path.abspath(model.onnx), engine, words, report, args.triton_repository is None)


def _where(plan: FleetPlan, model: Model, target: Target) -> str:
    return f"{os.path.basename(plan.path)}, line {model.line}: {model.name} for {target.name}"


def _parsed(parser, words: tuple[str, ...], where: str):
    """The words as the command would parse them."""
    parser.problem = ""
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            args = parser.parse_args(words)
    except SystemExit:
        problem = parser.problem or "these flags end the command (--help, --version)"
    else:
        problem = flag_problem(args)
    if problem:
        raise ConversionError(f"{where}: {problem}", hint="The flags are those of onnx2trt.py: --help-all shows them.", code=ExitCode.USAGE)
    return args


def _refuse_common_files(plan: FleetPlan, tasks: list[Task]) -> None:
    """No two conversions write one engine or one report."""
    writers: dict[str, Task] = {}
    for task in tasks:
        for path in filter(None, (task.engine, task.report)):
            other = writers.setdefault(os.path.realpath(path), task)
            if other is not task:
                raise ConversionError(
                    f"{os.path.basename(plan.path)}: {other.label} and {task.label} would both write {path}",
                    hint="Put {model} and {target} into its name.",
                    code=ExitCode.USAGE,
                )
