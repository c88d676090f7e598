"""What a script over TensorRT's own API builds: the flags on the FP32 ONNX, and TensorRT's own calibrator. TensorRT 8.6 to 10."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def build(folder: Path, engine: str, int8: bool, level: int, timings: bool) -> None:
    """One engine; to be run in a process of its own.

    Args:
        folder: of sources.prepare.
        timings: read the kernel timings of folder/raw.timings where they are, and write them afterwards.

    Raises:
        RuntimeError: with what TensorRT said, as far as it says it.
    """
    import json

    import tensorrt as trt

    feeds = [dict(np.load(path)) for path in sorted((folder / "feeds").glob("*.npz"))]
    logger = trt.Logger(trt.Logger.WARNING)
    trt.init_libnvinfer_plugins(logger, "")
    builder = trt.Builder(logger)
    explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    network = builder.create_network(1 << int(explicit) if explicit is not None else 0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(json.loads((folder / "about.json").read_text())["model"]):
        raise RuntimeError("cannot parse: " + "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.builder_optimization_level = level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_flag(trt.BuilderFlag.FP16)
    if timings:
        _set_timings(config, folder / "raw.timings")
    profile = _profile(builder, network, feeds[0])
    if profile is not None:
        config.add_optimization_profile(profile)
    uploads = None
    if int8:
        config.set_flag(trt.BuilderFlag.INT8)
        uploads = _Uploads()
        config.int8_calibrator = _calibrator(trt, network, feeds, uploads)
        if profile is not None:
            config.set_calibration_profile(profile)
    made = builder.build_serialized_network(network, config)
    if made is None:
        raise RuntimeError("TensorRT gave no engine")
    (folder / f"{engine}.part").write_bytes(made)
    (folder / f"{engine}.part").replace(folder / engine)
    if timings:
        (folder / "raw.timings").write_bytes(config.get_timing_cache().serialize())
    if uploads is not None:
        uploads.close()


def _profile(builder, network, feed: dict[str, np.ndarray]):
    """The shapes of the feed alone; None where the network leaves nothing free."""
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    if not any(tensor.is_shape_tensor or -1 in tuple(tensor.shape) for tensor in tensors):
        return None
    profile = builder.create_optimization_profile()
    for tensor in tensors:
        if tensor.is_shape_tensor:
            profile.set_shape_input(tensor.name, *[feed[tensor.name].ravel().tolist()] * 3)
        else:
            profile.set_shape(tensor.name, *[feed[tensor.name].shape] * 3)
    return profile


def _set_timings(config, path: Path) -> None:
    cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    if cache is None or not config.set_timing_cache(cache, False):  # of another TensorRT or GPU
        config.set_timing_cache(config.create_timing_cache(b""), False)


class _Uploads:
    """One place on the device for each input."""

    def __init__(self) -> None:
        from onnx2trt.trt.memory import open_cuda

        self._cuda = open_cuda()
        self._stream = self._cuda.new_stream()
        self._places: dict[str, int] = {}

    def __call__(self, name: str, array: np.ndarray) -> int:
        """Its address, once the array is there."""
        if name not in self._places:
            self._places[name] = self._cuda.allocate(array.nbytes)
        self._cuda.upload(self._places[name], array, self._stream)
        self._cuda.synchronize(self._stream)
        return self._places[name]

    def close(self) -> None:
        self._cuda.close()


def _calibrator(trt, network, feeds: list[dict[str, np.ndarray]], upload):
    """TensorRT's entropy calibrator over the feeds.

    Args:
        upload: (input name, array) -> device address.
    """
    inputs = (network.get_input(index) for index in range(network.num_inputs))
    types = {tensor.name: np.dtype(trt.nptype(tensor.dtype)) for tensor in inputs}
    waiting = list(feeds)

    class Calibrator(trt.IInt8EntropyCalibrator2):
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return 1  # of explicit batches TensorRT knows the size itself

        def get_batch(self, names, *_):
            if not waiting:
                return None
            feed = waiting.pop(0)
            return [upload(name, np.ascontiguousarray(feed[name], types[name])) for name in names]

        def read_calibration_cache(self, *_):
            return None

        def write_calibration_cache(self, *_):
            pass

    return Calibrator()
