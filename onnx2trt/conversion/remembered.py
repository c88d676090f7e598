"""What a run has measured, in a file of the user's cache folder that tells whether it is whole: figures, nothing that is ever loaded."""

from __future__ import annotations

import json
import os
import time

from onnx2trt.base.cache_folders import user_cache_folder
from onnx2trt.base.errors import ConversionError
from onnx2trt.base.side_files import read_json
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.plan import key as identity

BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError)  # what reading a file that is missing or odd may raise


def place_of(job: Job, folder: str, key: dict) -> str | None:
    """The file of what this key says; None where nothing is to be kept (--timing-cache none).

    Args:
        folder: in the cache folder.
    """
    root = user_cache_folder()
    if not root or job.plan.build.timing_cache is None:
        return None
    return os.path.join(root, folder, f"{identity.sealed(key)['sha256'][:32]}.json")


def read(path: str | None) -> dict:
    """What was kept.

    Raises:
        One of BROKEN: there is no such file, or it was damaged or changed.
    """
    kept = read_json(path or "")
    if identity.sealed({name: value for name, value in kept.items() if name != "sha256"}) != kept:
        raise ValueError("it is not as it was written")
    return kept


def keep(path: str | None, figures: dict, run: Run) -> None:
    """Write the figures, with today's date as `measured`; a folder that cannot be written is no fault."""
    if path is None:
        return
    kept = {"measured": time.strftime("%Y-%m-%d", time.gmtime()), **figures}
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        run.replace_now(path, json.dumps(identity.sealed(kept)).encode(), required=False)
    except (OSError, ConversionError) as error:
        run.console.debug(f"{path} is not written: {error}")
