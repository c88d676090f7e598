"""The class that TensorRT's own INT8 calibration calls."""

from __future__ import annotations


def make_calibrator(base: type, batch_size: int, batches, upload, cache: bytes | None, on_error=None):
    """The object that TensorRT's own calibration calls.

    Args:
        base: IInt8EntropyCalibrator2 or IInt8MinMaxCalibrator, injected by the trt room.
        batch_size: samples in one batch.
        batches: iterator of preprocess.Batch, all of the same shape.
        upload: input name -> array, to input name -> device address. The memory belongs to the caller and has to outlive
            the build.
        cache: text of a cache to use instead of data; None calibrates.
        on_error: called with an exception that stopped calibration. TensorRT swallows what its callbacks raise and would
            carry on as if the data had ended, so this is the chance to stop at once.

    Returns:
        A calibrator with `error` (what stopped it), `batches_used`, `samples_used` and `written` (cache text TensorRT made).
    """

    class Calibrator(base):
        def __init__(self) -> None:
            base.__init__(self)  # must be called by name: without it TensorRT crashes
            self.error: BaseException | None = None
            self.batches_used = 0
            self.samples_used = 0
            self.written: bytes | None = None

        def get_batch_size(self) -> int:
            return batch_size

        def get_batch(self, names, *_) -> list[int] | None:
            if self.error is not None:
                return None
            try:
                batch = next(batches, None)
                if batch is None:
                    return None
                addresses = upload(batch.arrays)
                self.batches_used += 1
                self.samples_used += batch.real_rows or 1
                return [addresses[name] for name in names]  # exactly one for each name: TensorRT copies without checking
            except BaseException as error:  # KeyboardInterrupt, too: none of them may pass through C++
                self.error = error
                if on_error is not None:
                    on_error(error)
                return None

        def read_calibration_cache(self, *_) -> bytes | None:
            return cache

        def write_calibration_cache(self, text, *_) -> None:
            if self.error is None:
                self.written = bytes(text)

    return Calibrator()
