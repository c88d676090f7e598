"""Ask the NVIDIA driver what is there, before any TensorRT object exists.

A Builder or Runtime of TensorRT 8.6 to 11 raises, aborts or segfaults on a machine without a GPU, by version.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

DRIVER = "libcuda.so.1"
CUDA_ERROR_NO_DEVICE = 100
CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803
ATTRIBUTE_CC_MAJOR, ATTRIBUTE_CC_MINOR = 75, 76  # cuda.h, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True)
class Driver:
    """What the driver answered; `problem` says in words why no GPU can be used, empty where one can."""

    problem: str = ""
    version: str = ""  # the newest CUDA version that it supports, as 13.0
    gpu: str = ""
    compute_capability: str = ""  # of the first GPU, as 9.0


def probe_driver() -> Driver:
    """Load the driver library and ask for its version and the first GPU. Never raises."""
    try:
        cuda = ctypes.CDLL(DRIVER)
    except OSError:
        return Driver(problem=f"no NVIDIA driver is installed ({DRIVER} cannot be loaded)")
    number = ctypes.c_int(0)
    version = ""
    if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0 and number.value:
        version = f"{number.value // 1000}.{number.value % 1000 // 10}"
    code = cuda.cuInit(0)
    if code:
        reasons = {
            CUDA_ERROR_NO_DEVICE: "the NVIDIA driver finds no GPU",
            CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: "the NVIDIA kernel module and driver library have different versions (reboot)",
        }
        return Driver(problem=reasons.get(code, f"the NVIDIA driver does not start (cuInit error {code})"), version=version)
    if cuda.cuDeviceGetCount(ctypes.byref(number)) or not number.value:
        return Driver(problem="the NVIDIA driver shows no GPU (is CUDA_VISIBLE_DEVICES empty?)", version=version)
    device = ctypes.c_int(0)
    label = ctypes.create_string_buffer(256)
    if cuda.cuDeviceGet(ctypes.byref(device), 0) or cuda.cuDeviceGetName(label, 256, device):
        return Driver(problem="the first GPU does not answer (no rights to its device file?)", version=version)
    capability = []
    for attribute in (ATTRIBUTE_CC_MAJOR, ATTRIBUTE_CC_MINOR):
        cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        capability.append(str(number.value))
    return Driver(version=version, gpu=label.value.decode(errors="replace"), compute_capability=".".join(capability))
