"""Stage 'inspect': what is in an engine file, from its header, from the JSON beside it, and from the engine itself where it loads."""

from __future__ import annotations

import hashlib
import json

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.files import read_engine
from onnx2trt.conversion.run import Run
from onnx2trt.plan.plan import Capabilities
from onnx2trt.report.inspection import rows
from onnx2trt.report.result import SCHEMA_VERSION, describe_environment
from onnx2trt.trt import inspector, refusal
from onnx2trt.trt.driver import probe_driver
from onnx2trt.trt.engine import Engine
from onnx2trt.trt.header import Header, read_header, what_else
from onnx2trt.trt.library import Library, capabilities, load_library
from onnx2trt.trt.memory import open_cuda
from onnx2trt.trt.plugins import load_plugins

FROM_SIDE_FILE = ("model", "plan", "preprocessing", "precision", "calibration", "accuracy", "latency")


def inspect(path: str, plugins: tuple[str, ...], run: Run) -> str:
    """Put everything that can be known of an engine into the result.

    Args:
        plugins: libraries that the engine needs.

    Returns:
        The status, inspected.

    Raises:
        ConversionError: VALIDATION where the file cannot be read or is cut off, MACHINE where nothing here knows what it is
            or a plugin library cannot be loaded.
    """
    with run.stage("inspect", f"reading {path}"):
        data = read_engine("--inspect", path)
        header = read_header(data)
        if header and header.size is not None and header.size != len(data):
            raise ConversionError(
                f"{path} is damaged: its header says {header.size} bytes, the file has {len(data)}",
                hint="It was not copied whole: copy it again.",
                code=ExitCode.VALIDATION,
            )
        run.result["engine"] = _describe(path, data, header)
        side = _side_file(path, run)
        if side is not None:
            _take_over(side, run)
    library, caps = _library(header.backend if header else "auto")
    run.result["environment"] = {**run.result["environment"], **describe_environment(caps)} if caps else run.result["environment"]
    why, hint = _load(library, caps, data, header, plugins, run)
    engine = run.result["engine"]
    engine.update(loaded=not why, not_loaded_because=why or None)
    if why and header is None and side is None:
        raise ConversionError(
            f"{path} is no engine that anything here knows: {what_else(data)}",
            hint=hint or "Engines of TensorRT 8.6 and newer and of TensorRT-RTX are known by their first bytes.",
            code=ExitCode.MACHINE,
        )
    if why and hint:
        run.console.info(f"hint: {hint}")
    return "inspected"


def _describe(path: str, data: bytes, header: Header | None) -> dict:
    return {
        "path": path,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "gpu_archs": list(header.gpu_archs or ()) if header else [],
        "made_with": {
            "backend": header.backend if header else None,
            "tensorrt": header.version if header else None,
            "gpu": header.targets or None if header else None,
        },
        "sources": ["header"] if header else [],
        "loaded": False,
        "not_loaded_because": None,
    }


def _side_file(path: str, run: Run) -> dict | None:
    """The JSON beside the engine; None where there is none, or it is of another engine."""
    name = path + ".json"
    try:
        with open(name, encoding="utf-8") as stream:
            side = json.load(stream)
        if side["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version {side['schema_version']}")
        sha256 = side["engine"]["sha256"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        run.console.warn(f"{name} is not used: it is no result of a conversion ({error})")
        return None
    if sha256 != run.result["engine"]["sha256"]:
        run.console.warn(f"{name} is not used: it belongs to another engine, with sha256 {sha256}")
        return None
    return side


def _take_over(side: dict, run: Run) -> None:
    """What the conversion knew of its engine, as far as it can be shown."""
    engine, made_in = run.result["engine"], side.get("environment") or {}
    made_with = engine["made_with"]
    found = {
        **run.result,
        **{key: side.get(key, run.result[key]) for key in FROM_SIDE_FILE},
        "engine": {
            **engine,
            **{key: side["engine"][key] for key in ("tensors", "profiles", "device_memory_bytes") if key in side["engine"]},
            "gpu_archs": engine["gpu_archs"] or side["engine"].get("gpu_archs", []),
            "made_with": {
                "backend": made_with["backend"] or made_in.get("backend"),
                "tensorrt": made_with["tensorrt"] or made_in.get("tensorrt"),
                "gpu": made_with["gpu"] or made_in.get("gpu"),
            },
            "sources": [*engine["sources"], "side file"],
        },
    }
    try:
        list(rows({**found, "status": "inspected"}))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        run.console.warn(f"{engine['path']}.json is not used: it is not as a conversion writes it ({type(error).__name__}: {error})")
        return
    run.result = found


def _library(backend: str) -> tuple[Library | None, Capabilities | None]:
    """The library that such an engine is for; (None, None) where it is not installed."""
    try:
        library = load_library(backend)
    except ConversionError:
        return None, None
    return library, capabilities(library)


def _load(
    library: Library | None, caps: Capabilities | None, data: bytes, header: Header | None, plugins: tuple[str, ...], run: Run
) -> tuple[str, str]:
    """Load the engine and describe it; it is never allowed to run code of its own.

    Returns:
        (why it does not load here, what to do); both empty where it has loaded.
    """
    problem = caps.driver_problem if caps else probe_driver().problem
    if problem:
        return f"no GPU answers here: {problem}", ""
    if library is None:
        name = {"tensorrt-rtx": "TensorRT-RTX"}.get(header.backend if header else "", "TensorRT")
        return f"{name}, which it is for, is not installed in this Python", ""
    if header and header.gpu_archs is not None and not caps.executes(header.gpu_archs):
        return f"it is {header.targets}, the GPU here is a {caps.gpu} ({caps.gpu_arch})", ""
    made_by = header.version if header else ""
    load_plugins(library, plugins, run.console.debug)
    try:
        cuda = open_cuda()
        try:
            with run.stage("inspect", "loading the engine"):
                engine = Engine(library, data, cuda, run.console.debug)
                try:
                    _describe_loaded(engine, run)
                finally:
                    engine.close()
        finally:
            cuda.close()
    except ConversionError as error:
        why, hint = refusal.explain(error.message, made_by, library.version)
        return why or " ".join(error.message.split()), hint or error.hint
    return "", ""


def _describe_loaded(engine: Engine, run: Run) -> None:
    known = run.result["engine"]
    known.update(
        engine.describe(),
        layers=engine.layers,
        profile_shapes=[[vars(shape) for shape in engine.profile(index)] for index in range(engine.profiles)],
        sources=[*known["sources"], "engine"],
    )
    found = inspector.parse_layers(engine.inspect(), {})
    if not found:
        run.console.warn("the engine was built without detailed verbosity: the precisions of its layers cannot be read")
        return
    run.result["precision"] = {
        **{"requested": None, "delivered": None, "int8_mac_share": None, "fallback": [], "ignored_constraints": []},
        **(run.result["precision"] or {}),
        "layers": inspector.count_layers(found),
        "layers_source": "inspector",
    }
