"""The calibration cache: read and checked before anything is calibrated, written as soon as there are scales."""

from __future__ import annotations

import os
from dataclasses import replace

from onnx2trt.base.cores import peak_memory_mb
from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.conversion.int8 import WrittenCache
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.quant import calibration_cache
from onnx2trt.quant.calibration_cache import Cache, Identity
from onnx2trt.report.result import Calibration
from onnx2trt.rewrite.number_formats import FORMATS

IMPLAUSIBLE = 1000.0  # between a scale's reach and the largest value seen; on noise, scales made of images reach 0.09 to 3.2 times as far


def read_cache(job: Job, run: Run) -> Cache | None:
    """The cache named by --calibration-cache, checked; None where there is none yet.

    With --skip-unchanged one of ours that was damaged since is made anew, as an engine is, where the data for that are there.

    Raises:
        ConversionError: CALIBRATION, where it is damaged or stale.
    """
    path = job.plan.calibration.cache
    if not (path and os.path.exists(path)):
        return None
    damage = _damage(path) if job.plan.skip_unchanged and job.data.calibration is not None else ""
    if damage:
        run.console.warn(f"{damage}: it is made anew from {job.data.calibration.origin}")
        return None
    cache = calibration_cache.read(path)
    cache, of_other = _in_format(job, cache)
    warning = calibration_cache.check_identity(cache, identity_of(job), job.plan.calibration.accept_stale)
    for text in filter(None, (of_other, warning)):
        run.console.warn(text)
    return replace(cache, fits=cache.identity is not None and not warning and not of_other)


def _in_format(job: Job, cache: Cache) -> tuple[Cache, str]:
    """(the cache with scales of the format that was asked for, a warning where they were of the other one)

    Raises:
        ConversionError: CALIBRATION, where it was made for the other one, unless --accept-stale-cache was given: then its scales are
            brought to the same reach.
    """
    wanted, own = job.number_format, FORMATS[cache.number_format]
    if own is wanted:
        return cache, ""
    problem = f"{cache.path} holds scales for {own.label}, and {wanted.label} was asked for"
    if not job.plan.calibration.accept_stale:
        raise ConversionError(
            problem,
            hint=f"Calibrate for {wanted.label} with --calibration-dir and another --calibration-cache; --accept-stale-cache takes over "
            "how far each scale reaches.",
            code=ExitCode.CALIBRATION,
        )
    scales = {name: scale * own.largest / wanted.largest for name, scale in cache.scales.items()}
    return replace(cache, scales=scales), f"{problem}: they are used with the same reach, because of --accept-stale-cache"


def _damage(path: str) -> str:
    """What is wrong with a cache of ours by itself, in words; empty where it is in order, is only stale, or never was ours."""
    side = calibration_cache.side_file(path)
    if not os.path.isfile(path) or not os.path.exists(side):
        return ""
    try:
        if calibration_cache.read(path).identity is None:
            return f"{path} and {side} do not belong together: one of them is damaged"
    except ConversionError as error:
        return error.message
    return ""


def describe(job: Job, method: str) -> Calibration:
    """What the result says where the scales are those of the cache."""
    return Calibration(method, None, 0, job.plan.calibration.cache, 0.0, peak_memory_mb())


def method_of(cache: Cache) -> str:
    """The method that its scales were found by, as far as it is known."""
    return (cache.identity and cache.identity.chosen) or cache.algorithm


def scales_of(cache: Cache, names: tuple[str, ...], more: tuple[str, ...]) -> dict[str, float]:
    """The scales of a cache that has one for each of these tensors, and for `more` as far as it has them.

    Raises:
        ConversionError: CALIBRATION.
    """
    silent = cache.identity.silent if cache.identity else ()
    missing = [name for name in names if name not in cache.scales and name not in silent]
    if missing:
        raise ConversionError(
            f"calibration cache {cache.path} has no scale for {len(missing)} of {len(names)} tensors of this model, first {missing[0]!r}",
            hint="It belongs to another model: calibrate with --calibration-dir and another --calibration-cache.",
            code=ExitCode.CALIBRATION,
        )
    return {name: cache.scales[name] for name in (*names, *more) if name in cache.scales}


def check_plausible(job: Job, cache: Cache, names: tuple[str, ...], ranged: dict[str, float], run: Run) -> None:
    """Refuse a foreign cache whose scales have nothing to do with what the tensors hold: damage that no line betrays.

    Caches of ours are known by the hash in their side file.

    Args:
        names: of the tensors whose scales will be used.
        ranged: scales by the ranges of the tensors, which were measured on whatever data there is, and be it synthetic.

    Raises:
        ConversionError: CALIBRATION, unless --accept-stale-cache was given.
    """
    if cache.identity is not None:
        return
    for name in names:
        largest = job.number_format.largest
        reach, seen = largest * cache.scales.get(name, 0.0), largest * ranged.get(name, 0.0)
        if reach > 0 and seen > 0 and not 1 / IMPLAUSIBLE < reach / seen < IMPLAUSIBLE:
            found = f"calibration cache {cache.path}: the scale of {name!r} reaches to {reach:.3g}, the tensor to {seen:.3g}"
            if not job.plan.calibration.accept_stale:
                raise ConversionError(
                    f"{found} on {job.data.any().origin} data",
                    hint="The file is damaged or of another model: calibrate with --calibration-dir, or insist with --accept-stale-cache.",
                    code=ExitCode.CALIBRATION,
                )
            run.console.warn(found)


def write_cache(job: Job, text: str, method: str, run: Run, silent: tuple[str, ...]) -> WrittenCache | None:
    """Write cache and side file where a cache was asked for; they are worth having even if the build fails.

    Args:
        silent: tensors without a scale because they were always zero.
    """
    path = job.plan.calibration.cache
    if not path:
        return None
    identity = replace(identity_of(job), chosen=method, silent=silent)
    side = calibration_cache.side_text(text, identity).encode()
    # the side file first: killed in between, we leave no cache of unknown origin, which a later run would refuse
    run.write_now({calibration_cache.side_file(path): side, path: text.encode("utf-8", "surrogateescape")})
    return WrittenCache(path, text, identity)


def identity_of(job: Job) -> Identity:
    chosen = job.data.calibration
    return Identity(
        model_sha256=job.info.identity,
        data_sha256=calibration_cache.hash_files(chosen.files, chosen.origin) if chosen else None,
        samples=len(chosen.samples) if chosen else None,
        preprocessing=job.data.reader.preprocessing.describe() if job.data.reader.preprocessing else None,
        method=job.plan.calibration.method,
    )
