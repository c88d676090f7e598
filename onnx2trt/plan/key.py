"""What a conversion depends on, as a key that stands in its result; and what has changed since. Standard library only."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum

from onnx2trt.plan.efforts import EFFORTS
from onnx2trt.plan.plan import Plan

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# what computes a part of the result -> the packages on PyPI that bring it
LIBRARIES = {
    "numpy": ("numpy",),
    "onnx": ("onnx",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
}

# Fields of the plan that do not stand among the options of a key, and why. Every other field does, a new one included.
ELSEWHERE = {
    **dict.fromkeys(("onnx", "calibration.directory", "calibration.cache", "build.timing_cache", "build.plugins"), "by content"),
    **dict.fromkeys(("validation.test_image", "validation.directory"), "by content"),
    **dict.fromkeys(("backend", "executes_here", "bf16", "fp16_scales"), "among the versions"),
    **dict.fromkeys(
        ("native_method", "structures", "variants", "build.timing_cache_named", "effects", "typed"), "follows from other fields"
    ),
    **dict.fromkeys(("door", "dry_run", "skip_unchanged", "validation.engine", "refit"), "such a run writes no engine, or may write none"),
    **dict.fromkeys(("outputs.engine", "outputs.keep_failed"), "names files, and changes nothing in them"),
    **dict.fromkeys(("outputs.json", "outputs.report", "outputs.array"), "names files, and changes nothing in them"),
    "outputs.detector": "only the report draws boxes",
    "outputs.save_onnx": "the file is looked at",
    "outputs.triton_model": "written anew in any case, from the engine that is there",
    "validation.require_execution": "the former status is looked at",
    "validation.flags": "names flags, for messages",
}

# field of the plan -> the flag that decides it, where the names differ
FLAGS = {
    "route": "--strongly-typed",
    "baseline": "--no-baseline",
    "gpu_archs": "--gpu-arch",
    "workspace_bytes": "--workspace-size",
    "keep_layers": "--disable-strict-types",
    "calibrator": "--quantization",
    "build.optimization_level": "--builder-optimization-level",
    "build.hardware_compatibility": "--hardware-compatibility-level",
    "shapes.min": "--min-shapes",
    "shapes.opt": "--opt-shapes",
    "shapes.max": "--max-shapes",
    "shapes.max_batch": "--max-batch-size",
    "shapes.profiles": "--profile",
    "shapes.image_size": "--imgsz",
    "calibration.samples": "--calibration-samples",
    "calibration.method": "--calibration-method",
    "calibration.accept_stale": "--accept-stale-cache",
    "calibration.effort": "--quantization-effort",
    "validation.enabled": "--no-validate",
    "validation.max_drop_percent": "--max-accuracy-drop",
}

# options that follow from other flags, or from the machine, where their flag is not typed
FOLLOWING = frozenset(("--strongly-typed", "--quantization", "--disable-strict-types"))

# field of the plan -> its value as the user would type it, where the plan turns it round
TYPED = {
    "keep_layers": lambda in_fp32: not in_fp32,
    "baseline": lambda held: not held,
    "validation.enabled": lambda enabled: not enabled,
    "calibrator": lambda calibrator: "calibrator" if calibrator else "qdq",
    "calibration.effort": lambda effort: next(name for name, known in EFFORTS.items() if known == effort),
}


def options(plan: Plan) -> dict:
    """Flag -> value of everything in the plan that changes the engine or the verdict on it, as JSON has it."""
    found = {flag_of(place): TYPED.get(place, _as_it_is)(value) for place, value in _leaves(plan) if place not in ELSEWHERE}
    return json.loads(json.dumps(found, default=_plain))


def flag_of(place: str) -> str:
    """'build.dla_core' -> '--dla-core'."""
    return FLAGS.get(place) or "--" + place.rpartition(".")[2].replace("_", "-")


def _leaves(value, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted name, value) of the fields; of those that are dataclasses, their fields, but for what is one choice of the user."""
    for field in fields(value):
        place, inner = prefix + field.name, getattr(value, field.name)
        if is_dataclass(inner) and place != "calibration.effort":
            yield from _leaves(inner, place + ".")
        else:
            yield place, inner


def _as_it_is(value):
    return value


def _plain(value):
    return value.value if isinstance(value, Enum) else vars(value)


@functools.cache
def versions() -> dict[str, str]:
    """Of this tool (by its source) and of the libraries that compute with it; found without loading any, once in a process."""
    found = {"onnx2trt": own_sha256()}
    for name, packages in LIBRARIES.items():
        installed = []
        for package in packages:
            try:
                installed.append(importlib.metadata.version(package))
            except importlib.metadata.PackageNotFoundError:
                continue
        found[name] = " and ".join(installed) or "unknown"
    return found


def own_sha256(root: str = PACKAGE) -> str:
    """SHA-256 over our own source files."""
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".py"):
                with open(os.path.join(folder, name), "rb") as stream:
                    place = os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")
                    digest.update(f"{place}\0".encode() + hashlib.sha256(stream.read()).digest())
    return digest.hexdigest()


def sealed(key: dict) -> dict:
    """The key with the SHA-256 over all of it."""
    return {"sha256": hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest(), **key}


def differences(then: dict, now: dict, typed: tuple[str, ...] = ()) -> list[str]:
    """What differs between two keys, a few words for each; empty where they are equal.

    Args:
        typed: the flags that the user has typed. A flag that nobody typed is named only where nothing else has changed: its value then
            follows from what has.
    """
    if then.get("sha256") == now["sha256"]:
        return []
    found = ["the model"] if then.get("model") != now["model"] else []
    following = []
    for part in ("options", "data", "versions"):
        old, new = then.get(part), now[part]
        old = old if isinstance(old, dict) else {}  # out of a file that somebody else may have written
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                follows = name in FOLLOWING and name not in typed
                (following if follows else found).append(_difference(part, name, old.get(name), new.get(name)))
    return found or following or ["the key itself is damaged"]


def _difference(part: str, name: str, old, new) -> str:
    if part == "data":
        return f"data of {name}"
    if name == "onnx2trt":
        return "this tool"
    return f"{'version of ' * (part == 'versions')}{name} ({_shown(old)} -> {_shown(new)})"


def _shown(value) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
