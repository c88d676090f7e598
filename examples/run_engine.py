#!/usr/bin/env python3
"""Run an engine on an image or on arrays, as a deployment would. Copy this one file: besides the engine and the JSON that onnx2trt wrote
beside it, it needs numpy, OpenCV (for images) and cuda-python. By tensor names: TensorRT 8.6 to 11, and TensorRT-RTX."""

import argparse
import hashlib
import importlib
import json
import sys
import time

import numpy as np

WARM_UP = 20  # inferences before those that are timed


def preprocess(data, pre):
    """Encoded image -> [1, C, H, W] or [1, H, W, C], bit for bit what the engine was calibrated and validated with."""
    import cv2

    channels, (width, height) = pre["channels"], pre["size"]
    flag = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR, 4: cv2.IMREAD_UNCHANGED}[channels]
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    if image is None:
        raise RuntimeError("this is no image that OpenCV knows")
    if channels == 4:
        image = (image // 257).astype(np.uint8) if image.dtype == np.uint16 else image
        if image.ndim == 2 or image.shape[2] == 3:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGRA if image.ndim == 2 else cv2.COLOR_BGR2BGRA)
    ratio = (min if pre["resize"] == "letterbox" else max)(height / image.shape[0], width / image.shape[1])
    size = max(round(image.shape[1] * ratio), 1), max(round(image.shape[0] * ratio), 1)
    image = cv2.resize(image, (width, height) if pre["resize"] == "stretch" else size, interpolation=cv2.INTER_LINEAR)
    top, left = abs(image.shape[0] - height) // 2, abs(image.shape[1] - width) // 2
    if pre["resize"] == "letterbox":
        borders = top, height - image.shape[0] - top, left, width - image.shape[1] - left
        image = cv2.copyMakeBorder(image, *borders, cv2.BORDER_CONSTANT, value=(114, 114, 114, 114))
    elif pre["resize"] == "crop":
        image = image[top : top + height, left : left + width]
    image = image.reshape(height, width, channels)
    if pre["color"] == "rgb":
        image = image[:, :, [2, 1, 0, 3][:channels]]
    if pre["dtype"] != "uint8":
        image = image.astype(np.float32) / np.float32(255 if pre["range"] == 1 else 1)
        image = (image - np.array(pre["mean"], np.float32)) / np.array(pre["std"], np.float32)
    if pre["layout"] == "NCHW":
        image = image.transpose(2, 0, 1)
    return np.ascontiguousarray(image[None], dtype=pre["dtype"])


def load_inputs(path, result):
    """Input name -> array."""
    if path.endswith(".npz"):
        return dict(np.load(path))
    profiles = result["plan"]["profiles"]
    if not result["preprocessing"]:
        raise RuntimeError("this engine takes no image; give an .npz with " + ", ".join(profile["name"] for profile in profiles))
    with open(path, "rb") as stream:
        return {profiles[0]["name"]: preprocess(stream.read(), result["preprocessing"]).repeat(profiles[0]["min"][0], axis=0)}


def run(data, result, feed, graph=False, benchmark=0):
    """Load the engine and run it. Returns (output name -> array, milliseconds of each of `benchmark` inferences, copies not included)."""
    runtime = importlib.import_module("cuda.bindings.runtime")

    def cuda(call, *arguments):
        status, *values = getattr(runtime, call)(*arguments)
        if int(status):
            raise RuntimeError(f"{call}: CUDA error {int(status)}")
        return values[0] if values else None

    cuda("cudaSetDevice", 0)  # first of all: TensorRT crashes where there is no GPU
    trt = importlib.import_module({"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}[result["environment"]["backend"]])
    loader = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    loader.engine_host_code_allowed = result["plan"]["build"]["version_compatible"]  # only ever load an engine of your own
    engine = loader.deserialize_cuda_engine(data)
    if engine is None:
        raise RuntimeError("the engine does not load here; python onnx2trt.py --inspect says why")
    context, stream, addresses, outputs = engine.create_execution_context(), cuda("cudaStreamCreate"), {}, {}
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    for name in inputs:
        array = np.asarray(feed[name], trt.nptype(engine.get_tensor_dtype(name)), order="C")  # a scalar stays one
        if not context.set_input_shape(name, array.shape):
            raise RuntimeError(f"the engine refuses shape {array.shape} for {name}")
        addresses[name] = int(cuda("cudaMalloc", max(array.nbytes, 1)))
        cuda("cudaMemcpy", addresses[name], array.ctypes.data, array.nbytes, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice)
    for name in set(names) - set(inputs):
        shape = tuple(context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise RuntimeError(f"the size of {name} depends on the data: it needs an IOutputAllocator")
        outputs[name] = np.empty(shape, trt.nptype(engine.get_tensor_dtype(name)))
        addresses[name] = int(cuda("cudaMalloc", max(outputs[name].nbytes, 1)))

    def launch():
        if not context.execute_async_v3(int(stream)):
            raise RuntimeError("the engine failed to run")

    if not all(context.set_tensor_address(*pair) for pair in addresses.items()):
        raise RuntimeError("the engine refuses an address")
    launch()  # also where a graph is made: the first run after a change of shapes prepares what cannot be captured
    cuda("cudaStreamSynchronize", stream)
    if graph:  # the work on these addresses and shapes, as one launch; engine and context have to outlive it
        cuda("cudaStreamBeginCapture", stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        queued = context.execute_async_v3(int(stream))
        status, *captured = runtime.cudaStreamEndCapture(stream)
        if not queued or int(status):
            raise RuntimeError("this engine cannot be captured as a CUDA graph (it may decide on the host what it runs)")
        executable = cuda("cudaGraphInstantiate", captured[0], 0)

        def launch():
            cuda("cudaGraphLaunch", executable, stream)

    times = []
    for _ in range((WARM_UP + benchmark) if benchmark else int(graph)):
        started = time.perf_counter()
        launch()
        cuda("cudaStreamSynchronize", stream)
        times.append((time.perf_counter() - started) * 1e3)
    for name, array in outputs.items():
        cuda("cudaMemcpy", array.ctypes.data, addresses[name], array.nbytes, runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost)
    return outputs, times[WARM_UP:]  # a server keeps engine, context and addresses, and repeats copy, launch, copy


def main(argv=None):
    parser = argparse.ArgumentParser(description="Run an engine of onnx2trt on an image or on arrays.")
    parser.add_argument("engine", help="the engine; its JSON has to stand beside it")
    parser.add_argument("input", help="an image, or an .npz whose keys are the names of the inputs")
    parser.add_argument("--save", metavar="FILE", help="write the outputs as .npz")
    parser.add_argument("--cuda-graph", action="store_true", help="launch the engine's work as one CUDA graph")
    parser.add_argument("--benchmark", metavar="N", type=int, default=0, help="time so many inferences, inputs and outputs on the GPU")
    args = parser.parse_args(argv)
    try:
        with open(args.engine, "rb") as stream, open(args.engine + ".json", encoding="utf-8") as side:
            data, result = stream.read(), json.load(side)
        if result["engine"]["sha256"] != hashlib.sha256(data).hexdigest():
            sys.exit(f"error: {args.engine}.json belongs to another engine")
        outputs, times = run(data, result, load_inputs(args.input, result), args.cuda_graph, max(args.benchmark, 0))
    except (OSError, RuntimeError, ImportError) as error:
        sys.exit(f"error: {error}")
    for name, array in outputs.items():
        print(f"{name}: {array.dtype} {list(array.shape)}, from {array.min():.6g} to {array.max():.6g}, mean {array.mean():.6g}")
    if times:
        p50, p90, p99 = np.percentile(times, (50, 90, 99))
        print(f"{len(times)} inferences: p50 {p50:.3f} ms, p90 {p90:.3f} ms, p99 {p99:.3f} ms, {1e3 / np.mean(times):.1f} a second")
    if args.save:
        np.savez(args.save, **outputs)


if __name__ == "__main__":
    main()
