"""Stage 'write', for Triton: --triton-repository gets the engine as DIR/NAME/1/model.plan, with the configuration that describes it.

Engines for several kinds of GPU may share one model: each conversion adds its own, and `cc_model_filenames` names them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from onnx2trt.base import files
from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.side_files import NotTaken, read_bounded
from onnx2trt.base.told import told_by
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.report.built import EngineFile
from onnx2trt.report.triton_config import (
    PLAN,
    PlanFile,
    Tensor,
    Warmup,
    check_tensor,
    interface,
    max_batch_size,
    model_config,
    plans_in,
)

VERSION, CONFIG, LABELS, WARMUP = "1", "config.pbtxt", "labels.txt", "warmup"
OF_ENGINE = {"float64": "float32", "bfloat16": "bf16"}  # type in the ONNX -> in the engine, where they differ


@dataclass(frozen=True)
class Found:
    """What an engine is to Triton, apart from where its file lies."""

    tensors: tuple[Tensor, ...]
    batch: int  # max_batch_size
    warmup: dict[str, Warmup]
    files: dict[str, bytes]  # name in the model's folder -> content, of labels and the warm-up request


def check_repository(job: Job) -> None:
    """Prove before the build that the model's folder can be written, that its configuration is ours to replace, and the types known.

    Raises:
        ConversionError: OUTPUT; MACHINE, for inputs or outputs that Triton does not know.
    """
    folder = job.plan.outputs.triton_model
    if folder is None:
        return
    for spec in (*job.engine_io.inputs, *job.engine_io.outputs):
        shape = tuple(dim if isinstance(dim, int) else -1 for dim in spec.shape or ())
        check_tensor(Tensor(spec.name, OF_ENGINE.get(spec.dtype, spec.dtype), shape, False))
    _read_config(folder)
    existing = folder
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing) or "."
    files.check_writable(os.path.join(existing, CONFIG if existing == folder else "onnx2trt"))


def write_repository(job: Job, engine: EngineFile, gpu: str, data, run: Run) -> dict | None:
    """Write the model's folder; its configuration gets its name last, so that a server that polls never sees it without the engine.

    Args:
        engine: as the result has it, with what the loaded engine says of its inputs and outputs.
        gpu: as the result names it: NVIDIA H200 (9.0).
        data: the engine, bytes-like.

    Returns:
        For the result: the folder, max_batch_size, and the SHA-256 of each file by its name in the folder. None where it was not asked for.

    Raises:
        ConversionError: OUTPUT; MACHINE, for inputs or outputs that Triton does not know.
    """
    folder = job.plan.outputs.triton_model
    if folder is None:
        return None
    found, arch = describe(job, engine.tensors), gpu.rpartition("(")[2].rstrip(")")
    plans = _with_others(folder, arch, PlanFile("", engine.sha256, job.info.identity, interface(found.tensors)), run)
    text = model_config(os.path.basename(folder), found.tensors, found.batch, found.warmup, plans)
    contents = {f"{VERSION}/{plans[arch].file}": data, **found.files, CONFIG: text.encode()}
    written = {}
    for name, content in contents.items():
        path = os.path.join(folder, name)
        files.make_folder(os.path.dirname(path))
        files.remove_abandoned(path)
        written[name] = run.write_at_end(path, content)
    return {"path": folder, "max_batch_size": found.batch, "files": written}


def describe(job: Job, told: list[dict]) -> Found:
    """
    Args:
        told: inputs and outputs as the engine tells them (trt.engine.Engine.describe).
    """
    tensors = tuple(_tensors(told))
    rows = job.data.reader.rows
    batch = max_batch_size(tensors, rows.separate and rows.block == 1 and not rows.shared)
    contents: dict[str, bytes] = {}
    names = told_by(job.info.metadata).names
    if names and sorted(names) == list(range(len(names))):
        labelled = {tensor.name for tensor in tensors if not tensor.input and _values(tensor, batch > 0) == len(names)}
        if labelled:
            contents[LABELS] = "".join(f"{' '.join(names[number].split())}\n" for number in range(len(names))).encode()
            tensors = tuple(replace(tensor, labels=LABELS if tensor.name in labelled else "") for tensor in tensors)
    warmup, samples = _warmup(job, tensors, batch > 0)
    return Found(tensors, batch, warmup, {**contents, **samples})


def _tensors(told: list[dict]) -> Iterator[Tensor]:
    for tensor in told:
        profile = tensor["profile"]
        batch = (profile["min"][0], profile["max"][0]) if profile and profile["min"] else None
        decides = bool(profile) and "values" in profile
        yield Tensor(tensor["name"], tensor["dtype"], tuple(tensor["shape"]), tensor["input"], batch, decides)


def _values(tensor: Tensor, batched: bool) -> int:
    """How many an output has for one request; below 0 where that is not fixed."""
    shape = tensor.shape[batched:]
    return -1 if -1 in shape else math.prod(shape)


def _warmup(job: Job, tensors: tuple[Tensor, ...], batched: bool) -> tuple[dict[str, Warmup], dict[str, bytes]]:
    """A request made of the first sample that the user has given, and its files; empty where there is none, or NumPy lacks a type."""
    data = job.data.test or job.data.validation or job.data.calibration
    inputs = [tensor for tensor in tensors if tensor.input]
    if data is None or any(tensor.dtype == "bf16" for tensor in inputs):
        return {}, {}
    with closing(job.data.reader.batches(data, [])) as batches:  # damaged files are left out here; others have said so
        batch = next(batches, None)
    if batch is None:
        return {}, {}
    warmup, contents = {}, {}
    for index, tensor in enumerate(inputs):
        array = batch.arrays[tensor.name][:1] if batched else batch.arrays[tensor.name]
        file = f"input{index}"
        contents[f"{WARMUP}/{file}"] = np.ascontiguousarray(array, dtype=tensor.dtype).tobytes()
        warmup[tensor.name] = Warmup(tensor.dtype, array.shape, file)
    return warmup, contents


def _with_others(folder: str, arch: str, own: PlanFile, run: Run) -> dict[str, PlanFile]:
    """Compute capability -> engine, of those that stand in the folder for other GPUs, and of this one."""
    plans = _read_config(folder)
    former = plans.pop(arch, None)
    for other, plan in tuple(plans.items()):
        path = os.path.join(folder, VERSION, plan.file)
        if not os.path.isfile(path):
            del plans[other]
        elif plan.interface != own.interface:
            del plans[other]
            run.console.warn(
                f"{path}, for GPUs of compute capability {other}, has other inputs or outputs: {CONFIG} no longer names it. "
                "Convert on such a GPU again"
            )
        elif plan.model != own.model:
            run.console.warn(f"{path}, for GPUs of compute capability {other}, was made from another model: convert on such a GPU again")
    taken = {plan.file for plan in plans.values()}
    free = PLAN if PLAN not in taken else f"model_cc{arch.replace('.', '')}.plan"
    name = former.file if former and taken and former.file not in taken else free  # alone, it has the name that Triton looks for
    return {**plans, arch: replace(own, file=name)}


def _read_config(folder: str) -> dict[str, PlanFile]:
    """The engines that the configuration in the folder tells of; empty where there is none.

    Raises:
        ConversionError: OUTPUT, where it is not as this tool has written it.
    """
    path = os.path.join(folder, CONFIG)
    try:
        plans = plans_in(read_bounded(path).decode("utf-8", "surrogateescape"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except NotTaken:
        plans = None
    except OSError as error:
        raise ConversionError(f"{path} cannot be read: {error.strerror}", code=ExitCode.OUTPUT) from None
    if plans is None:
        raise ConversionError(
            f"{path} was not written by this tool, or changed since, and is not overwritten",
            hint="Move it away. For settings of your own, copy it to configs/SETTINGS.pbtxt beside it, change the copy, and start "
            "tritonserver with --model-config-name SETTINGS.",
            code=ExitCode.OUTPUT,
        )
    return plans
