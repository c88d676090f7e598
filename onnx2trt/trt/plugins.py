"""Plugin libraries: operators that TensorRT does not bring itself, for the parser and for engines that contain them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.trt.library import Library
from onnx2trt.trt.logger import make_logger

HAND_OVER = ("getCreators", "getPluginCreators")  # what a plugin library that TensorRT's registry loads itself exports
_loggers: list = []  # TensorRT's plugins keep the address of the logger that they were given for as long as the process lives


def load_plugins(library: Library, paths: tuple[str, ...], show: Callable[[str, bool], None]) -> None:
    """Load plugin libraries into TensorRT's registry; does nothing without any.

    Both kinds are taken: libraries that hand over their creators (trtexec's --dynamicPlugins), and those that register them by
    themselves when they are loaded (REGISTER_TENSORRT_PLUGIN; trtexec's --staticPlugins). TensorRT's own plugins are registered, too.

    Raises:
        ConversionError: MACHINE, where one cannot be loaded.
    """
    if not paths:
        return
    logger, messages = make_logger(library.trt, show)
    _loggers.append(logger)
    library.trt.init_libnvinfer_plugins(logger, "")
    registry = library.trt.get_plugin_registry()
    for path in paths:
        before = _creators(registry)
        try:
            loaded = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise ConversionError(f"plugin library {path} cannot be loaded: {error}", code=ExitCode.MACHINE) from None
        if any(hasattr(loaded, symbol) for symbol in HAND_OVER):
            registry.load_library(path)
        added = _creators(registry) - before
        show(f"plugins of {path}: {', '.join(sorted(added)) or 'none that were not registered already'}", False)
    errors = messages.take_errors()
    if errors:
        raise ConversionError(f"plugin libraries {', '.join(paths)}: {'; '.join(errors)}", code=ExitCode.MACHINE)


def _creators(registry) -> set[str]:
    found = registry.all_creators if hasattr(registry, "all_creators") else registry.plugin_creator_list  # 8.6 to 10.0
    return {f"{creator.name} {creator.plugin_version}" for creator in found}
