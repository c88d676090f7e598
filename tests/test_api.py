"""api.py: the Python interface; every call runs in a child, of which a result or an exception reaches the caller, and nothing else."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import typing
from pathlib import Path

import numpy as np
import onnx
import pytest
from command import ROOT, check_schema
from helpers import flag_actions
from helpers import typing as typed_words
from models import conv_net, multiplication_chain, random

import onnx2trt
from onnx2trt import api
from onnx2trt.base.errors import ExitCode
from onnx2trt.plan.arguments import build_parser


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(conv_net(), "net.onnx")
    return tmp_path


def words(**options):
    """The command line of these keywords."""
    return api._checked({"onnx": "net.onnx", **options})[0]


# ---- keywords


def test_every_flag_is_a_keyword_and_every_keyword_a_flag():
    flags = {action.dest for action in flag_actions()}
    assert set(typing.get_type_hints(onnx2trt.Options)) == flags


@pytest.mark.parametrize("action", [action for action in build_parser()._actions if action.choices], ids=lambda action: action.dest)
def test_choices_are_those_of_the_flag(action):
    hint = typing.get_type_hints(onnx2trt.Options)[action.dest]
    if action.dest != "builder_optimization_level":
        assert set(typing.get_args(hint)) == set(action.choices)


@pytest.mark.parametrize("action", flag_actions(), ids=lambda action: action.dest)
def test_a_keyword_means_what_its_flag_means(action):
    """Whatever the flag takes as text, the keyword takes, and it comes out as the same value."""
    flag, *given = typed_words(action)
    parser = build_parser()
    expected = parser.parse_args(["--onnx", "net.onnx", flag, *given])
    try:
        made = api._checked({"onnx": "net.onnx", action.dest: given[0] if given else True})[0]
    except onnx2trt.ConversionError as error:
        pytest.skip(f"not by itself: {error.message}")
    assert parser.parse_args(made) == expected


def test_pairs_lists_and_numbers():
    made = words(
        opt_shapes={"x": (2, 3, 16, 16)},
        layer_precisions={"*/norm*": "fp32", "head": "fp16"},
        mean=[0.1, 0.2, 0.3],
        std=-0.5 + 1,
        plugins=["a.so", "b.so"],
        gpu_arch="89",
        max_batch_size=4,
        metric="mask:0.5",
        verbose=2,
        quiet=False,
        report=None,
    )
    args = build_parser().parse_args(made)
    assert args.opt_shapes == [(("x", (2, 3, 16, 16)),)] and args.layer_precisions == [(("*/norm*", "fp32"),), (("head", "fp16"),)]
    assert args.mean == [(0.1,), (0.2,), (0.3,)] and args.std == [(0.5,)] and args.plugins == ["a.so", "b.so"]
    assert not args.quiet and args.verbose == 2 and args.report is None and args.max_batch_size == 4


def test_values_that_inputs_are_bound_to():
    bound = {"a": 16000, "b": True, "c": [1.5, -2], "d": np.eye(2, dtype=np.int32), "e": np.float32(0.5), "f": Path("t.npy"), "g": "[1]"}
    expected = {"a": "16000", "b": "True", "c": "[1.5, -2]", "d": "[[1, 0], [0, 1]]", "e": "0.5", "f": "t.npy", "g": "[1]"}
    args = build_parser().parse_args(words(bind_input=bound))
    assert dict(pair for pairs in args.bind_input for pair in pairs) == expected
    assert build_parser().parse_args(words(bind_input="sr=16000")).bind_input == [(("sr", "16000"),)]


@pytest.mark.parametrize("name", ["-1.onnx", "--onnx", "a b.onnx", "ü\n.onnx"])
def test_a_file_name_stays_a_file_name(name):
    assert build_parser().parse_args(words(output=name)).output == name


@pytest.mark.parametrize(
    "options, fragment",
    [
        ({"precision": "int7"}, "int7"),
        ({"max_batch_size": 0}, "'0' is not a whole number"),
        ({"mean": [1, 2]}, "--mean takes one number"),
        ({"no_validate": True, "require_execution": True}, "contradict"),
        ({"json": "-"}, "the result is returned"),
    ],
)
def test_what_the_command_refuses_is_an_exception(folder, options, fragment):
    with pytest.raises(onnx2trt.ConversionError, match=fragment.replace("(", r"\(")) as caught:
        onnx2trt.convert("net.onnx", **options)
    assert caught.value.code == ExitCode.USAGE and not list(folder.glob("*.engine"))


@pytest.mark.parametrize("options", [{"precison": "fp16"}, {"help": True}, {"tf32": "yes"}])
def test_a_wrong_keyword_is_a_type_error(options):
    with pytest.raises(TypeError):
        onnx2trt.convert("net.onnx", **options)


# ---- results


@pytest.fixture
def rtx():
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


def test_convert_gives_what_the_command_writes(rtx, folder, capfd):
    result = onnx2trt.convert("net.onnx", json="r.json", quiet=True)
    assert isinstance(result, onnx2trt.Result)
    assert (result.status, result.exit_code, result.precision.delivered) == ("simulated", 0, "fp16")
    assert os.path.getsize(result.engine.path) == result.engine.bytes and result.accuracy[0].sqnr_db > 40
    check_schema(result.to_dict())
    assert onnx2trt.Result.from_dict(json.loads((folder / "r.json").read_text())) == result
    assert capfd.readouterr().out == "", "stdout is the caller's"


def test_int8_from_python(rtx, folder):
    os.mkdir("data")
    for index in range(6):
        np.save(f"data/{index}.npy", random(1, 3, 16, 16, seed=index))
    result = onnx2trt.convert("net.onnx", precision="int8", calibration_dir=folder / "data", max_accuracy_drop=20, quiet=True)
    assert result.calibration.samples_used == 6 and result.precision.int8_mac_share > 0.5


def test_inspect_from_python(rtx, folder):
    made = onnx2trt.convert("net.onnx", quiet=True)
    found = onnx2trt.inspect("net.engine", quiet=True)
    assert found.status == "inspected" and found.engine.sha256 == made.engine.sha256 and found.model == made.model


def test_a_failure_carries_code_hint_and_what_was_found(rtx, folder):
    onnx.save(multiplication_chain(), "chain.onnx")
    with pytest.raises(onnx2trt.ConversionError) as caught:
        onnx2trt.convert("chain.onnx", disable_strict_types=True, quiet=True, json="r.json")
    error = caught.value
    assert error.code == ExitCode.VALIDATION and error.hint and error.result.model.path == "chain.onnx"
    assert error.result.accuracy[0].nonfinite > 0 and (folder / "r.json").exists() and not (folder / "chain.engine").exists()
    with pytest.raises(onnx2trt.ConversionError) as caught:
        onnx2trt.convert("missing.onnx", quiet=True)
    assert caught.value.code == ExitCode.MODEL


def test_a_json_that_cannot_be_written_is_said(rtx, folder):
    with pytest.raises(onnx2trt.ConversionError, match="cannot write") as caught:
        onnx2trt.convert("net.onnx", json="missing/r.json", quiet=True)
    assert caught.value.code == ExitCode.OUTPUT


# ---- the caller stays unharmed


def run_script(folder, text: str, **options):
    script = folder / "script.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n" + textwrap.dedent(text))
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=folder, timeout=120, **options)


def test_a_crash_of_the_child_is_an_exception(folder):
    """SIGKILL, as the out-of-memory killer sends it, to the child alone."""
    done = run_script(
        folder,
        """
        import os, signal, subprocess, threading, time
        import onnx2trt

        def kill():
            while True:
                found = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "__main__.py"], capture_output=True, text=True)
                children = found.stdout.split()
                if children:
                    os.kill(int(children[0]), signal.SIGKILL)
                    return
                time.sleep(0.005)

        threading.Thread(target=kill, daemon=True).start()
        try:
            onnx2trt.convert("net.onnx", quiet=True)
        except onnx2trt.ConversionError as error:
            print(int(error.code), "SIGKILL" in error.message, bool(error.hint))
        print("still here")
        """,
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == "still here" and lines[0].endswith("True True"), done.stdout + done.stderr
    assert not list(folder.glob(".*.tmp"))


@pytest.mark.parametrize("signum, ended", [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "mine")])
def test_a_signal_ends_the_call_and_not_more(folder, signum, ended):
    done = run_script(
        folder,
        f"""
        import os, signal, threading, time
        import onnx2trt

        seen = []

        def mine(number, frame):
            print("mine")
            seen.append(number)

        signal.signal(signal.SIGTERM, mine)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has its children ignore it
        before = signal.getsignal(signal.SIGINT)
        threading.Timer(0.2, lambda: os.kill(os.getpid(), {int(signum)})).start()
        try:
            while not seen:
                onnx2trt.convert("net.onnx", quiet=True)
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
        except onnx2trt.ConversionError as error:
            print(int(error.code))
        assert signal.getsignal(signal.SIGTERM) is mine and signal.getsignal(signal.SIGINT) is before
        """,
    )
    assert done.returncode == 0 and ended in done.stdout.split(), done.stdout + done.stderr
    assert not list(folder.glob(".*.tmp"))


def test_it_works_in_a_thread(rtx, folder):
    found = []
    thread = threading.Thread(target=lambda: found.append(onnx2trt.convert("net.onnx", quiet=True).status))
    thread.start()
    thread.join()
    assert found == ["simulated"]


def test_handlers_of_the_caller_are_in_force_again(rtx, folder):
    before = {number: signal.getsignal(number) for number in api.ENDING}
    onnx2trt.convert("net.onnx", quiet=True)
    assert {number: signal.getsignal(number) for number in api.ENDING} == before


def test_importing_is_light_and_names_are_found():
    assert {"convert", "inspect", "Result", "Options", "ConversionError"} <= set(onnx2trt.__all__)
    assert all(hasattr(onnx2trt, name) for name in onnx2trt.__all__) and not hasattr(onnx2trt, "nothing")
