"""Stage 'inspect': what is in an engine file, from its header, from the JSON beside it, and from the engine itself where it loads."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from onnx2trt.base.driver import probe_driver
from onnx2trt.base.errors import ConversionError, ExitCode, having_found
from onnx2trt.base.files import read_engine
from onnx2trt.base.side_files import NotTaken
from onnx2trt.base.words import base_name
from onnx2trt.conversion.run import Run
from onnx2trt.plan.capabilities import Capabilities
from onnx2trt.report.built import EngineFile
from onnx2trt.report.described import describe_environment
from onnx2trt.report.inspection import rows
from onnx2trt.report.read_result import ODD, read_result
from onnx2trt.report.result import Environment, Precision, Result
from onnx2trt.trt import inspector, refusal
from onnx2trt.trt.engine import Engine
from onnx2trt.trt.header import Header, read_header, what_else
from onnx2trt.trt.library import Library, capabilities, load_library
from onnx2trt.trt.memory import open_cuda
from onnx2trt.trt.plugins import load_plugins

FROM_SIDE_FILE = ("model", "plan", "preprocessing", "precision", "calibration", "accuracy", "latency")
OF_THE_ENGINE = ("tensors", "profiles", "device_memory_bytes")  # what the side file knows of it


def inspect(path: str, plugins: tuple[str, ...], run: Run) -> dict:
    """Everything that can be known of an engine, as fields of the result.

    Args:
        plugins: libraries that the engine needs.

    Raises:
        ConversionError: VALIDATION where the file cannot be read or is cut off, MACHINE where nothing here knows what it is
            or a plugin library cannot be loaded.
    """
    with run.stage("inspect", f"reading {base_name(path)}"):
        data = read_engine("--inspect", path)
        header = read_header(data)
        if header and header.size is not None and header.size != len(data):
            raise ConversionError(
                f"{path} is damaged: its header says {header.size} bytes, the file has {len(data)}",
                hint="It was not copied whole: copy it again.",
                code=ExitCode.VALIDATION,
            )
        engine = _describe(path, data, header)
        side = _side_file(engine, run)
        found = {"engine": engine} if side is None else _taken_over(side, engine)
    library, caps = _library(header.backend if header else "auto")
    found["environment"] = describe_environment(caps) if caps else Environment()
    with having_found(found):
        loaded, why, hint = _load(_Here(library, caps), data, header, plugins, run)
        engine = replace(found["engine"], loaded=not why, not_loaded_because=why or None)
        if loaded:
            engine = replace(engine, **loaded["engine"], sources=[*engine.sources, "engine"])
            if loaded["precision"]:
                known = found.get("precision") or Precision(None)
                found["precision"] = replace(known, layers=loaded["precision"], layers_source="inspector")
        found["engine"] = engine
        if why and header is None and side is None:
            raise ConversionError(
                f"{path} is no engine that anything here knows: {what_else(data)}",
                hint=hint or "Engines of TensorRT 8.6 and newer and of TensorRT-RTX are known by their first bytes.",
                code=ExitCode.MACHINE,
            )
    if why and hint:
        run.console.info(f"hint: {hint}")
    return found


def _describe(path: str, data: bytes, header: Header | None) -> EngineFile:
    return EngineFile(
        path,
        len(data),
        hashlib.sha256(data).hexdigest(),
        list(header.gpu_archs or ()) if header else [],
        made_with={
            "backend": header.backend if header else None,
            "tensorrt": header.version if header else None,
            "gpu": header.targets or None if header else None,
        },
        sources=["header"] if header else [],
        loaded=False,
    )


def _side_file(engine: EngineFile, run: Run) -> Result | None:
    """The JSON beside the engine; None where there is none, or it is of another engine."""
    name = engine.path + ".json"
    try:
        side, sealed = read_result(name)
        problem = _why_not(side, sealed, engine)
    except FileNotFoundError:
        return None
    except OSError as error:
        problem = f"it cannot be read ({error.strerror})"
    except NotTaken as error:
        problem = str(error)
    if problem:
        run.console.warn(f"{name} is not used: {problem}")
        return None
    return side


def _why_not(side: Result, sealed: bool | None, engine: EngineFile) -> str:
    """Why the JSON beside an engine tells nothing of it; empty where it does."""
    if side.engine.sha256 != engine.sha256:
        return f"it belongs to another engine, with sha256 {side.engine.sha256}"
    if sealed is False:
        return "it is damaged, or was changed by hand"
    try:
        list(rows(replace(side, status="inspected", **_taken_over(side, engine)).to_dict()))
    except ODD as error:
        return f"it is no result of a conversion ({error})"
    return ""


def _taken_over(side: Result, engine: EngineFile) -> dict:
    """What the conversion knew of its engine, as fields of the result."""
    made, made_in = engine.made_with, side.environment
    made_with = {
        "backend": made["backend"] or made_in.backend,
        "tensorrt": made["tensorrt"] or made_in.tensorrt,
        "gpu": made["gpu"] or made_in.gpu,
    }
    known = {name: getattr(side.engine, name) for name in OF_THE_ENGINE}
    archs = engine.gpu_archs or side.engine.gpu_archs
    engine = replace(engine, **known, gpu_archs=archs, made_with=made_with, sources=[*engine.sources, "side file"])
    return {**{name: getattr(side, name) for name in FROM_SIDE_FILE}, "engine": engine}


class _Here:
    """The library that such an engine is for, and what it can do on this machine."""

    def __init__(self, library: Library | None, caps: Capabilities | None):
        self.library, self.caps = library, caps


def _library(backend: str) -> tuple[Library | None, Capabilities | None]:
    """The library that such an engine is for; (None, None) where it is not installed."""
    try:
        library = load_library(backend)
    except ConversionError:
        return None, None
    return library, capabilities(library)


def _load(here: _Here, data: bytes, header: Header | None, plugins: tuple[str, ...], run: Run) -> tuple[dict | None, str, str]:
    """Load the engine and describe it; it is never allowed to run code of its own.

    Returns:
        (what the engine says of itself, why it does not load here, what to do); the latter empty where it has loaded.
    """
    caps, library = here.caps, here.library
    problem = caps.driver_problem if caps else probe_driver().problem
    if problem:
        return None, f"no GPU answers here: {problem}", ""
    if library is None:
        name = {"tensorrt-rtx": "TensorRT-RTX"}.get(header.backend if header else "", "TensorRT")
        return None, f"{name}, which it is for, is not installed in this Python", ""
    if header and header.gpu_archs is not None and not caps.executes(header.gpu_archs):
        return None, f"it is {header.targets}, the GPU here is a {caps.gpu} ({caps.gpu_arch})", ""
    made_by = header.version if header else ""
    load_plugins(library, plugins, run.console.library)
    try:
        cuda = open_cuda()
        try:
            with run.stage("inspect", "loading the engine"):
                engine = Engine(library, data, cuda, run.console.library)
                try:
                    return _describe_loaded(engine, run), "", ""
                finally:
                    engine.close()
        finally:
            cuda.close()
    except ConversionError as error:
        why, hint = refusal.explain(error.message, made_by, library.version)
        return None, why or " ".join(error.message.split()), hint or error.hint


def _describe_loaded(engine: Engine, run: Run) -> dict:
    """Fields of the engine, and its layers by precision."""
    shapes = [[shape.to_dict() for shape in engine.profile(index)] for index in range(engine.profiles)]
    found = inspector.parse_layers(engine.inspect(), {})
    if not found:
        run.console.warn("the engine was built without detailed verbosity: the precisions of its layers cannot be read")
    fields = {**engine.describe(), "layers": engine.layers, "profile_shapes": shapes}
    return {"engine": fields, "precision": inspector.count_layers(found) if found else None}
