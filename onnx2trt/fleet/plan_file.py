"""The plan of a fleet as its file has it: models, targets, flags. What is wrong is refused with the line that it stands in."""

from __future__ import annotations

import glob
import os
import re
import shlex
from dataclasses import dataclass

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.side_files import NotTaken, read_bounded

MOST_BYTES = 2**20  # of the file; a thousand models with flags of their own need a tenth
MOST_TASKS = 20_000
INSTALL = 'pip install "onnx2trt[fleet]", or in a clone: pip install -r requirements-fleet.txt'
BACKENDS = ("tensorrt-rtx", "tensorrt")
DEFAULT_OUTPUT = "engines/{target}/{model}.engine"
ANY_GPU = "any"
NAME = re.compile(r"[^/\\\0{}]+")
NO_NAMES = (".", "..")


@dataclass(frozen=True)
class Target:
    """What engines are for, and which nodes can make them."""

    name: str
    backend: str = BACKENDS[0]
    gpu_archs: tuple[str, ...] = ()  # as typed, of TensorRT-RTX
    gpu: str | None = None  # Ray's accelerator type, or any
    resource: str | None = None  # a custom resource of Ray
    flags: tuple[str, ...] = ()

    @property
    def hides_gpus(self) -> bool:
        """An engine for TensorRT-RTX that asks for no GPU is made alike on nodes with and without one."""
        return self.backend == "tensorrt-rtx" and not self.gpu and not self.resource


@dataclass(frozen=True)
class Model:
    name: str
    onnx: str  # relative to the plan's folder, or absolute
    line: int
    flags: tuple[str, ...] = ()
    targets: tuple[str, ...] | None = None  # None: all


@dataclass(frozen=True)
class Workers:
    cpus: float = 1.0  # of a node, for each conversion
    retries: int = 2  # of a conversion whose node or process was lost
    wait_seconds: float = 60.0  # for a node that has what a target needs


@dataclass(frozen=True)
class FleetPlan:
    path: str  # absolute
    models: tuple[Model, ...]
    targets: tuple[Target, ...]
    flags: tuple[str, ...] = ()
    output: str = DEFAULT_OUTPUT
    workers: Workers = Workers()

    @property
    def folder(self) -> str:
        """Where relative paths begin."""
        return os.path.dirname(self.path)


def read_plan(path: str) -> FleetPlan:
    """Read and check a plan.

    Raises:
        ConversionError: USAGE, with the line; MACHINE where PyYAML is not installed.
    """
    reader = _Reader(path)
    top = reader.mapping(reader.root(), ("models", "targets"), ("flags", "output", "workers"), "a plan")
    targets = tuple(_target(reader, node) for node in reader.items(top["targets"], "targets"))
    reader.refuse_repeats("target", [(target.name, node) for target, node in zip(targets, reader.items(top["targets"], "targets"))])
    models = []
    for node in reader.items(top["models"], "models"):
        found = _models(reader, node, {target.name for target in targets})
        reader.refuse_repeats("model", [*((model.name, None) for model in models), *((model.name, node) for model in found)])
        models += found
    if len(models) * len(targets) > MOST_TASKS:
        reader.refuse(top["models"], f"{len(models)} models for {len(targets)} targets are more than {MOST_TASKS}", "Split the plan.")
    return FleetPlan(
        path=reader.path,
        models=tuple(models),
        targets=targets,
        flags=reader.words(top.get("flags")),
        output=_output(reader, top.get("output"), len(models), len(targets)),
        workers=_workers(reader, top.get("workers")),
    )


def _target(reader: _Reader, node) -> Target:
    keys = reader.mapping(node, ("name",), ("backend", "gpu_arch", "gpu", "resource", "flags"), "a target")
    backend = reader.text(keys["backend"]) if "backend" in keys else BACKENDS[0]
    if backend not in BACKENDS:
        reader.refuse(keys["backend"], f"backend {backend!r} is none of {', '.join(BACKENDS)}", "")
    if backend == "tensorrt" and "gpu_arch" in keys:
        reader.refuse(
            keys["gpu_arch"],
            "TensorRT builds for the GPU that it runs on, so gpu_arch cannot go with backend: tensorrt",
            "Name the nodes instead: gpu: A100 (an accelerator type of Ray), or resource: NAME.",
        )
    if backend == "tensorrt" and not keys.keys() & {"gpu", "resource"}:
        reader.refuse(
            node, "backend: tensorrt needs a GPU", f"Add gpu: A100 (an accelerator type of Ray), gpu: {ANY_GPU}, or resource: NAME."
        )
    return Target(
        name=reader.name(keys["name"]),
        backend=backend,
        gpu_archs=reader.texts(keys["gpu_arch"]) if "gpu_arch" in keys else (),
        gpu=reader.text(keys["gpu"]) if "gpu" in keys else None,
        resource=reader.text(keys["resource"]) if "resource" in keys else None,
        flags=reader.words(keys.get("flags")),
    )


def _models(reader: _Reader, node, targets: set[str]) -> list[Model]:
    """The models of one entry: a path or pattern, or a mapping with one."""
    if reader.is_text(node):
        return [Model(reader.stem(path, node), path, reader.line(node)) for path in reader.files(node)]
    keys = reader.mapping(node, ("model",), ("name", "flags", "targets"), "a model")
    paths = reader.files(keys["model"])
    wanted = reader.texts(keys["targets"]) if "targets" in keys else None
    for name in wanted or ():
        if name not in targets:
            reader.refuse(keys["targets"], f"there is no target {name!r}", f"The plan has {', '.join(sorted(targets))}.")
    if "name" in keys and len(paths) > 1:
        reader.refuse(keys["name"], f"one name for {len(paths)} models", "Leave it out: a model is called as its file is.")
    names = [reader.name(keys["name"])] if "name" in keys else [reader.stem(path, node) for path in paths]
    flags = reader.words(keys.get("flags"))
    return [Model(name, path, reader.line(node), flags, wanted) for name, path in zip(names, paths)]


def _output(reader: _Reader, node, models: int, targets: int) -> str:
    if node is None:
        return DEFAULT_OUTPUT
    text = reader.text(node)
    for word, count in (("{model}", models), ("{target}", targets)):
        if count > 1 and word not in text:
            reader.refuse(node, f"output {text!r} would give several engines one name", f"Put {word} into it, as in {DEFAULT_OUTPUT}.")
    return text


def _workers(reader: _Reader, node) -> Workers:
    if node is None:
        return Workers()
    keys = reader.mapping(node, (), ("cpus", "retries", "wait_seconds"), "workers")
    numbers = {key: reader.number(value, least=0.01 if key == "cpus" else 0.0) for key, value in keys.items()}
    if "retries" in numbers:
        if numbers["retries"] != int(numbers["retries"]):
            reader.refuse(keys["retries"], "retries is no whole number", "")
        numbers["retries"] = int(numbers["retries"])
    return Workers(**numbers)


class _Reader:
    """Values of a YAML file by its nodes, which know their lines. No Python object is made from a tag; scalars are as they are written."""

    def __init__(self, path: str):
        try:
            import yaml
        except ImportError:
            raise ConversionError("a plan is read with PyYAML, which is not installed", hint=INSTALL, code=ExitCode.MACHINE) from None
        self._yaml, self._typed = yaml, path
        self.path = os.path.abspath(path)

    def root(self):
        try:
            data = read_bounded(self.path, MOST_BYTES)
        except OSError as error:
            raise ConversionError(f"{self._typed} cannot be read: {error.strerror}", code=ExitCode.USAGE) from None
        except NotTaken as error:
            hint = "A large plan can be split."
            raise ConversionError(f"{self._typed} is not read: {error}", hint=hint, code=ExitCode.USAGE) from None
        try:
            node = self._yaml.compose(data, Loader=self._yaml.SafeLoader)
        except self._yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f", line {mark.line + 1}" if mark else ""
            raise ConversionError(f"{self._typed}{where}: this is no YAML: {error.problem or error.context}", code=ExitCode.USAGE) from None
        except (self._yaml.YAMLError, ValueError) as error:
            raise ConversionError(f"{self._typed}: this is no YAML: {error}", code=ExitCode.USAGE) from None
        except RecursionError:
            raise ConversionError(f"{self._typed}: this is nested too deeply", code=ExitCode.USAGE) from None
        if node is None:
            raise ConversionError(f"{self._typed} is empty", hint="docs/fleet.md shows a plan.", code=ExitCode.USAGE)
        return node

    def line(self, node) -> int:
        return node.start_mark.line + 1

    def refuse(self, node, message: str, hint: str):
        raise ConversionError(f"{self._typed}, line {self.line(node)}: {message}", hint=hint, code=ExitCode.USAGE)

    def refuse_repeats(self, kind: str, named: list) -> None:
        """
        Args:
            named: (name, node) in the order of the file.
        """
        seen = set()
        for name, node in named:
            if name in seen:
                self.refuse(node, f"a second {kind} is called {name!r}", "Give it another name: (name: ...).")
            seen.add(name)

    def mapping(self, node, needed: tuple[str, ...], others: tuple[str, ...], what: str) -> dict:
        """Key -> node."""
        known = ", ".join((*needed, *others))
        if not isinstance(node, self._yaml.MappingNode):
            self.refuse(node, f"{what} must be a mapping of {known}", "docs/fleet.md shows a plan.")
        found = {}
        for key, value in node.value:
            name = self.text(key)
            if name not in needed + others:
                self.refuse(key, f"{what} has no key {name!r}", f"It takes {known}.")
            if name in found:
                self.refuse(key, f"{name!r} stands there twice", "Keep one of them.")
            found[name] = value
        for name in needed:
            if name not in found:
                self.refuse(node, f"{what} lacks {name!r}", f"It takes {known}.")
        return found

    def items(self, node, what: str) -> list:
        if not isinstance(node, self._yaml.SequenceNode) or not node.value:
            self.refuse(node, f"{what} must be a list with at least one entry", "docs/fleet.md shows a plan.")
        return node.value

    def is_text(self, node) -> bool:
        return isinstance(node, self._yaml.ScalarNode)

    def text(self, node) -> str:
        if not self.is_text(node) or not node.value or (node.tag.endswith(":null") and node.style is None):
            self.refuse(node, "here must stand a text", "")
        if "\0" in node.value:
            self.refuse(node, "this text holds a NUL character", "")
        return node.value

    def texts(self, node) -> tuple[str, ...]:
        """One text, or a list of them."""
        return (self.text(node),) if self.is_text(node) else tuple(self.text(item) for item in self.items(node, "this"))

    def name(self, node) -> str:
        """A text that may stand in a file's name."""
        text = self.text(node)
        if not NAME.fullmatch(text) or text in NO_NAMES:
            self.refuse(node, f"{text!r} cannot stand in a file's name", "Take letters, digits, - and _.")
        return text

    def stem(self, path: str, node) -> str:
        stem = os.path.splitext(os.path.basename(path))[0]
        if not NAME.fullmatch(stem) or stem in NO_NAMES:
            self.refuse(node, f"{path} cannot be named after its file", "Give it a name: (model: FILE, name: NAME).")
        return stem

    def number(self, node, least: float) -> float:
        try:
            value = float(self.text(node))
        except ValueError:
            value = float("nan")
        if not least <= value < 1e6:
            self.refuse(node, f"{node.value!r} is no number from {least:g} on", "")
        return value

    def words(self, node) -> tuple[str, ...]:
        """Flags: a text that is split as a shell does it, or a list of words."""
        if node is None:
            return ()
        if not self.is_text(node):
            return self.texts(node)
        try:
            return tuple(shlex.split(self.text(node)))
        except ValueError as error:
            self.refuse(node, f"these flags cannot be split into words: {error}", "Close the quotes, or write a list of words.")

    def files(self, node) -> list[str]:
        """The files of a path or pattern, sorted; relative ones are so to the plan."""
        text = self.text(node)
        root = os.path.dirname(self.path)
        if os.path.isfile(os.path.join(root, text)):
            return [text]
        found = sorted(path for path in glob.glob(text, root_dir=root, recursive=True) if os.path.isfile(os.path.join(root, path)))
        if not found:
            self.refuse(node, f"there is no file {text}", f"Relative paths begin at {root}.")
        return found
