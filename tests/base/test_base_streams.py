"""base/streams.py: what is told fails nothing, and a result that cannot be written says so at once."""

import contextlib
import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
import threading

import pytest
from command import IMPORTABLE

from onnx2trt.base.streams import Descriptor


@contextlib.contextmanager
def full():
    number = os.open("/dev/full", os.O_WRONLY)
    try:
        yield number
    finally:
        os.close(number)


@contextlib.contextmanager
def pipe():
    read, write = os.pipe()
    try:
        yield read, write
    finally:
        for number in (read, write):
            with contextlib.suppress(OSError):
                os.close(number)


def test_what_is_lossy_drops_what_cannot_be_written():
    with full() as number:
        stream = io.TextIOWrapper(Descriptor(number, lossy=True), "utf-8", line_buffering=True)
        assert stream.write("a line\n") == 7
        stream.flush()


def test_what_is_not_says_so_at_once_and_keeps_nothing():
    with full() as number:
        stream = io.TextIOWrapper(Descriptor(number, lossy=False), "utf-8", write_through=True)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                stream.write("a result\n")
        stream.flush()


@pytest.mark.parametrize("lossy", [False, True])
def test_a_slow_reader_gets_all_of_it_though_nobody_may_wait(lossy):
    text = bytes(range(256)) * 2000  # more than a pipe holds
    got = []
    with pipe() as (read, write):
        os.set_blocking(write, False)

        def reader():
            while block := os.read(read, 7000):
                got.append(block)

        thread = threading.Thread(target=reader)
        thread.start()
        assert Descriptor(write, lossy).write(text) == len(text)
        os.close(write)
        thread.join()
    assert b"".join(got) == text


def test_a_reader_that_is_gone():
    with pipe() as (read, write):
        os.close(read)
        assert Descriptor(write, lossy=True).write(b"abc") == 3
        with pytest.raises(BrokenPipeError):
            Descriptor(write, lossy=False).write(b"abc")


OPENED = (
    IMPORTABLE
    + """
from onnx2trt.base.streams import open_streams, stdout_is_closed
import os
open_streams()
print("told", file=sys.stderr)
opened = os.open("file", os.O_CREAT | os.O_WRONLY)
assert opened > 2, opened
closed = stdout_is_closed()
try:
    sys.stdout.write("\u00b1 result\\n")
    said = "written"
except OSError as error:
    said = "refused"
os.write(opened, f"{closed} {said}".encode())
"""
)


@pytest.mark.parametrize(
    "streams, said",
    [
        ("> out", "False written"),
        (">&-", "True refused"),
        ("> out 2>&-", "False written"),
        ("<&- >&- 2>&-", "True refused"),
        ("1< file", "True refused"),
        ("> out 2> /dev/full", "False written"),
        ("> /dev/full 2> /dev/full", "False refused"),
        ("> out 2< file", "False written"),
    ],
)
def test_streams_that_are_closed_full_or_the_wrong_way_round(tmp_path, streams, said):
    (tmp_path / "program.py").write_text(OPENED)
    (tmp_path / "file").touch()
    line = f"{sys.executable} program.py {streams}"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr in ("", "told\n")
    assert (tmp_path / "file").read_text() == said
    if said.endswith("written"):
        assert (tmp_path / "out").read_text() == "\\xb1 result\n"


@pytest.mark.parametrize("columns", [60, 0])
def test_a_message_is_broken_between_words_on_a_terminal_whose_width_is_known(columns):
    sentence = "error: " + " ".join(f"word{number}-of-the-sentence" for number in range(12))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    script = f"{IMPORTABLE}from onnx2trt.base.streams import say; say({sentence!r})"
    subprocess.run([sys.executable, "-c", script], stderr=slave, check=True)
    lines = os.read(master, 2**16).decode().splitlines()
    os.close(slave)
    os.close(master)
    assert " ".join(" ".join(lines).split()) == sentence
    assert max(map(len, lines)) <= columns if columns else len(lines) == 1
