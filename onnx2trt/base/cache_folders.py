"""Where files are kept between conversions."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping


def user_cache_folder(environ: Mapping[str, str] | None = None) -> str:
    """Our folder among the user's caches; empty where there is no place for one. Nothing is created here.

    platformdirs is not used: it takes 25 ms to import, for one rule of the XDG specification.
    """
    environ = os.environ if environ is None else environ
    base = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the specification: a relative path is to be ignored
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".cache")
    return os.path.join(base, "onnx2trt") if os.path.isabs(base) else ""


def default_path(folder: str, backend: str, version: str, gpu: str, gpu_arch: str) -> str | None:
    """The timing cache of one library on one kind of GPU; timings of another would be refused, or wrong. None without a folder."""
    if not folder:
        return None
    words = (backend, version, gpu, f"sm{gpu_arch.replace('.', '')}")
    return os.path.join(folder, "timing", "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", word) for word in words) + ".cache")
