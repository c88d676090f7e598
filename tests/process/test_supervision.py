"""process/supervision.py and process/channel.py: real children that crash, hang and are interrupted."""

import contextlib
import fcntl
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest
from helpers import ROOT, refused, wait_until

from onnx2trt.base import files
from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.process import channel as channel_module
from onnx2trt.process import supervision
from onnx2trt.process.channel import ENVIRONMENT_KEY, Channel
from onnx2trt.process.supervision import Supervisor, restore_terminal

PROMPT_SECONDS = 1.0  # for what the design gives 0.5 s, on a busy machine
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

CHILD = f"""
import ctypes, fcntl, os, signal, subprocess, sys, time
sys.path.insert(0, {ROOT!r})
from onnx2trt.process.channel import attach
from onnx2trt.base.files import Temporary
folder = os.path.dirname(os.path.abspath(__file__))
alive = os.open(folder + "/alive", os.O_CREAT | os.O_RDWR)
fcntl.flock(alive, fcntl.LOCK_EX)  # falls when this process ends, however it ends
channel = attach()

def written(name, data=b"data"):
    temporary = Temporary(os.path.join(folder, name), channel.temporary)
    temporary.write(data)
    return temporary.path, temporary.final

def ready():
    # the parent gives this file its name, so it has heard everything before
    channel.publish(written("ready"))

def deaf():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

def wait_for(name):
    while not os.path.exists(os.path.join(folder, name)):
        time.sleep(0.005)
"""

PARENT = f"""
import os, signal, sys
sys.path.insert(0, {ROOT!r})
from onnx2trt.base.errors import ConversionError
from onnx2trt.process.supervision import Interrupted, Supervisor
os.fsync = lambda fd: None  # how fast the disk is, is not measured here
supervisor = Supervisor()
try:
    supervisor.run([sys.executable, "-I", "-S", sys.argv[1]])
except Interrupted as interrupt:
    print("interrupted in", supervisor.stage)
    sys.exit(128 + interrupt.signum)
except ConversionError as error:
    print(error.message)
    sys.exit(int(error.code))
"""


@pytest.fixture(autouse=True)
def signal_handlers():
    """A supervisor leaves signals ignored, because its process ends; this one goes on."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def child(folder, body: str) -> list[str]:
    """The command of a child with this body; the names of CHILD are at hand."""
    (folder / "child.py").write_text(CHILD + body)
    return [sys.executable, "-I", "-S", str(folder / "child.py")]


def supervise(folder, body: str) -> dict:
    return Supervisor().run(child(folder, body))


def gone(folder, seconds: float = PROMPT_SECONDS) -> bool:
    """Whether the child ends in time; a process that nobody buries counts as ended."""
    with open(folder / "alive") as stream:

        def unlocked() -> bool:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        return wait_until(unlocked, seconds)


def results(folder) -> list[str]:
    return sorted(set(os.listdir(folder)) - {"alive", "ready", "go", "child.py", "parent.py"})


DONE = 'channel.done({"status": "simulated"}, files, "the table\\n")'


# ---- a child that delivers


def test_a_result_and_its_files_in_order(tmp_path, monkeypatch):
    renamed = []
    rename = supervision.files.rename
    monkeypatch.setattr(supervision.files, "rename", lambda old, new: (renamed.append(os.path.basename(new)), rename(old, new)))
    supervisor = Supervisor()
    body = f'channel.stage("build")\nfiles = [written("b.engine"), written("a.json", b"json")]\nwritten("not wanted")\n{DONE}'
    outcome = supervisor.run(child(tmp_path, body))
    assert outcome["result"] == {"status": "simulated"} and outcome["table"] == "the table\n"
    assert renamed == ["b.engine", "a.json"]
    assert results(tmp_path) == ["a.json", "b.engine"]
    assert (tmp_path / "a.json").read_bytes() == b"json"
    assert supervisor.stage == "build"
    assert gone(tmp_path)


def test_an_optional_file_that_cannot_get_its_name_is_told_and_the_others_have_theirs(tmp_path):
    """A folder has taken its place meanwhile: no rename replaces that."""
    body = """
files, more = [written("a.engine")], [written("r.html"), written("s.html", b"page")]
os.mkdir(os.path.join(folder, "r.html"))
channel.done({"status": "simulated"}, files, "", more)
"""
    outcome = supervise(tmp_path, body)
    assert results(tmp_path) == ["a.engine", "r.html", "s.html"] and (tmp_path / "r.html").is_dir()
    (lost,) = outcome["lost"]
    assert "r.html" in lost and "directory" in lost.lower() and (tmp_path / "s.html").read_bytes() == b"page"
    assert gone(tmp_path)


def test_stdout_of_libraries_goes_to_stderr(tmp_path, capfd):
    supervise(tmp_path, f'os.write(1, b"library chatter")\nfiles = []\n{DONE}')
    captured = capfd.readouterr()
    assert captured.out == "" and "library chatter" in captured.err


def test_the_child_does_not_read_what_is_typed_or_piped_to_the_command(tmp_path):
    body = 'channel.done({"read": sys.stdin.read()}, [], "")'
    (tmp_path / "input").write_text("typed")
    before, given = os.dup(0), os.open(tmp_path / "input", os.O_RDONLY)
    os.dup2(given, 0)
    try:
        assert supervise(tmp_path, body)["result"] == {"read": ""}
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(given)


def test_the_child_has_a_session_of_its_own(tmp_path):
    """Ctrl-C at the terminal goes to the parent alone."""
    outcome = supervise(tmp_path, 'channel.done({"own": os.getsid(0) == os.getpid()}, [], "")')
    assert outcome["result"] == {"own": True}


def test_grandchildren_do_not_take_themselves_for_supervised(tmp_path):
    outcome = supervise(tmp_path, f'channel.done({{"there": {ENVIRONMENT_KEY!r} in os.environ, "again": attach()}}, [], "")')
    assert outcome["result"] == {"there": False, "again": None}


def test_a_large_message_and_every_character(tmp_path):
    outcome = supervise(tmp_path, r'channel.done({"text": "模\n\u2028\udcff\ud800" * 100000}, [], "")')
    assert outcome["result"]["text"] == "模\n\u2028\udcff\ud800" * 100000


def test_file_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"a\xff.engine")
    supervise(tmp_path, f"files = [written({name!r})]\nwritten({name + '2'!r})\n{DONE}")
    assert results(tmp_path) == [name]


def test_a_published_file_is_there_at_once_and_survives_a_crash(tmp_path):
    body = """
channel.publish(written("a.cache"))
wait_for("a.cache")
os.kill(os.getpid(), signal.SIGKILL)
"""
    with refused(ExitCode.MACHINE, "SIGKILL"):
        supervise(tmp_path, body)
    assert results(tmp_path) == ["a.cache"]


def test_a_child_that_hangs_in_teardown_has_delivered(tmp_path, monkeypatch):
    monkeypatch.setattr(supervision, "TEARDOWN_SECONDS", 0.2)
    started = time.monotonic()
    outcome = supervise(tmp_path, f'files = [written("a.engine")]\n{DONE}\ndeaf()\ntime.sleep(60)')
    assert time.monotonic() - started < 0.2 + PROMPT_SECONDS
    assert outcome["result"] == {"status": "simulated"}
    assert results(tmp_path) == ["a.engine"]
    assert gone(tmp_path)


def test_a_run_that_starts_meanwhile_takes_no_finished_file_for_a_leftover(tmp_path):
    """Between the child's last word and the renaming; seen as 'cannot write' with eight conversions at once."""
    body = 'files = [written("a.engine"), written("a.json")]\nchannel.done({"status": "simulated"}, files, "")\nchannel.leave(0)'

    def another_starts(outcome):
        time.sleep(0.3)  # a child that does not wait for us is gone by now
        for name in ("a.engine", "a.json"):
            files.remove_abandoned(str(tmp_path / name))
        return []

    Supervisor().run(child(tmp_path, body), another_starts)
    assert results(tmp_path) == ["a.engine", "a.json"] and gone(tmp_path)


def test_a_file_that_cannot_be_added_keeps_all_others_from_their_names(tmp_path):
    def no_room(outcome):
        raise ConversionError("no room", code=ExitCode.OUTPUT)

    (tmp_path / "a.engine").write_bytes(b"old")
    with refused(ExitCode.OUTPUT, "no room"):
        Supervisor().run(child(tmp_path, f'files = [written("a.engine")]\n{DONE}'), no_room)
    assert (tmp_path / "a.engine").read_bytes() == b"old" and results(tmp_path) == ["a.engine"] and gone(tmp_path)


def test_a_child_that_crashes_in_teardown_has_delivered(tmp_path):
    outcome = supervise(tmp_path, f'files = [written("a.engine")]\n{DONE}\nos.kill(os.getpid(), signal.SIGSEGV)')
    assert outcome["result"] == {"status": "simulated"}
    assert results(tmp_path) == ["a.engine"]


@pytest.mark.parametrize("end", [DONE, "os.kill(os.getpid(), signal.SIGKILL)"], ids=["done", "killed"])
def test_what_the_child_started_ends_with_it(tmp_path, end):
    """The helper inherits the lock, so it is free only when both are gone."""
    body = f'subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"], pass_fds=[alive])\nfiles = []\n{end}'
    with contextlib.suppress(ConversionError):
        supervise(tmp_path, body)
    assert gone(tmp_path)


# ---- a child that dies


@pytest.mark.parametrize(
    ("number", "stage", "code", "hint"),
    [
        (signal.SIGSEGV, "preflight", ExitCode.MODEL, "onnx.checker"),
        (signal.SIGBUS, "parse", ExitCode.MODEL, "onnx.checker"),
        (signal.SIGKILL, "parse", ExitCode.MODEL, "out-of-memory"),
        (signal.SIGABRT, "start", ExitCode.MACHINE, "-vv"),
        (signal.SIGABRT, "build", ExitCode.BUILD, "-vv"),
        (signal.SIGSEGV, "validate", ExitCode.BUILD, "-vv"),
        (signal.SIGKILL, "build", ExitCode.BUILD, "out-of-memory"),
        (signal.SIGSEGV, "inspect", ExitCode.MACHINE, "engine file is damaged"),
        (signal.SIGABRT, "start of TensorRT", ExitCode.MACHINE, "driver is too old"),
    ],
)
def test_a_death_by_signal_names_signal_and_stage(tmp_path, number, stage, code, hint):
    body = f'channel.stage("probe")\nchannel.stage({stage!r})\nwritten("a.engine")\nos.kill(os.getpid(), {int(number)})'
    with refused(code, number.name, f"stage '{stage}'", hint=hint):
        supervise(tmp_path, body)
    assert results(tmp_path) == []


def test_a_child_that_cannot_even_make_a_result_says_why(tmp_path):
    with refused(ExitCode.MACHINE, "out of memory", hint="Free memory"):
        supervise(tmp_path, 'written("a.engine")\nchannel.failed("out of memory", "Free memory.", 4)\ntime.sleep(60)')
    assert results(tmp_path) == []


def test_a_child_without_the_memory_to_say_so(tmp_path):
    with refused(ExitCode.MACHINE, "out of memory"):
        supervise(tmp_path, 'written("a.engine")\nchannel.exhausted()\ntime.sleep(60)')
    assert results(tmp_path) == []


def test_without_descriptors_no_child_is_started_and_none_is_lost(tmp_path):
    gc.collect()  # what other tests have left is closed now, not in between
    before = len(os.listdir("/proc/self/fd"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for more in range(12):
            resource.setrlimit(resource.RLIMIT_NOFILE, (before + more, limits[1]))
            with contextlib.suppress(ConversionError):
                supervise(tmp_path, DONE.replace("files", "[]"))
                break
        else:
            raise AssertionError("these are enough")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert more > 1 and len(os.listdir("/proc/self/fd")) <= before


def test_a_limit_of_memory_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(supervision, "limited", lambda: "allow more")
    with refused(ExitCode.BUILD, "SIGABRT", hint="allow more"):
        supervise(tmp_path, 'channel.stage("build")\nos.kill(os.getpid(), signal.SIGABRT)')
    with refused(ExitCode.BUILD, "no result", hint="allow more"):
        supervise(tmp_path, 'channel.stage("build")\nos._exit(1)')


def test_a_signal_without_a_name(tmp_path):
    with refused(ExitCode.MACHINE, f"signal {signal.SIGRTMIN + 1}"):
        supervise(tmp_path, f"os.kill(os.getpid(), {signal.SIGRTMIN + 1})")


@pytest.mark.parametrize("code", [0, 3])
def test_an_end_without_a_result(tmp_path, code):
    with refused(ExitCode.BUILD, f"ended with code {code} during stage 'calibrate'", "no result", hint="-vv"):
        supervise(tmp_path, f'channel.stage("calibrate")\nwritten("a.engine")\nos._exit({code})')
    assert results(tmp_path) == []


def test_a_child_that_dies_before_it_speaks(tmp_path):
    with refused(ExitCode.MACHINE, "code 1 during stage 'start'"):
        Supervisor().run([sys.executable, "-I", "-S", "-c", "raise SystemExit(1)"])


def test_a_message_that_is_cut_off_is_no_result(tmp_path):
    body = """files = [written("a.engine")]
os.write(channel._stream.fileno(), b'{"kind": "done", "result": {}, "files": [], "table": ""}')
os._exit(0)"""
    with refused(ExitCode.MACHINE, "no result"):
        supervise(tmp_path, body)
    assert results(tmp_path) == []


def test_a_rename_that_fails_is_an_error_of_the_output_and_stops_the_others(tmp_path):
    body = f"""
files = [written("a.engine"), written("a.json")]
os.mkdir(folder + "/a.engine")
{DONE}"""
    with refused(ExitCode.OUTPUT, "a.engine", "Is a directory"):
        supervise(tmp_path, body)
    assert results(tmp_path) == ["a.engine"]  # the folder in its way
    assert gone(tmp_path)


def test_a_published_file_that_cannot_be_renamed_ends_the_child(tmp_path):
    body = """
temporary, final = written("a.cache")
os.mkdir(final)
channel.publish((temporary, final))
time.sleep(60)"""
    with refused(ExitCode.OUTPUT, "a.cache"):
        supervise(tmp_path, body)
    assert results(tmp_path) == ["a.cache"] and gone(tmp_path)


# ---- a parent that is told to stop

HANG = 'deaf()\nchannel.stage("build")\nwritten("a.engine")\nready()\ntime.sleep(60)'


@contextlib.contextmanager
def parent(folder, body: str, ignored=(), before=""):
    """A supervising process of its own, once its child is ready; signals as at a terminal, whatever the tests were started by.

    Args:
        before: what it does first.
    """

    def signals() -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    child(folder, body)
    (folder / "parent.py").write_text(PARENT.replace("supervisor = ", before + "supervisor = "))
    command = [sys.executable, "-I", "-S", str(folder / "parent.py"), str(folder / "child.py")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=signals)
    try:
        assert wait_until((folder / "ready").exists)
        yield process
    finally:
        process.kill()
        process.communicate()


def end_of(process) -> tuple[int, str]:
    """(exit code, output) of a parent that has to end promptly."""
    out, _ = process.communicate(timeout=PROMPT_SECONDS)
    return process.returncode, out


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_ends_parent_and_child_at_once_and_leaves_nothing(tmp_path, number):
    with parent(tmp_path, HANG) as process:
        process.send_signal(number)
        assert end_of(process) == (128 + number, "interrupted in build\n")
        assert gone(tmp_path, 0.1)
        assert results(tmp_path) == []


def test_a_signal_in_the_middle_of_a_call_that_never_returns(tmp_path):
    """As TensorRT does in a build: C code, the interpreter's lock held."""
    with parent(tmp_path, "deaf()\nready()\nctypes.PyDLL(None).sleep(60)") as process:
        process.send_signal(signal.SIGINT)
        assert end_of(process)[0] == 130
        assert gone(tmp_path, 0.1)


def test_an_impatient_user(tmp_path):
    with parent(tmp_path, HANG) as process:
        for _ in range(20):
            process.send_signal(signal.SIGINT)
            time.sleep(0.001)
        assert end_of(process)[0] == 130
        assert results(tmp_path) == [] and gone(tmp_path, 0.1)


def test_the_first_of_two_signals_at_the_same_moment_counts(tmp_path):
    """The second must not break the cleaning up."""
    with parent(tmp_path, HANG) as process:
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):  # both wait, and come together
            process.send_signal(number)
        assert end_of(process) == (130, "interrupted in build\n")  # Python looks at the lower number first
        assert results(tmp_path) == [] and gone(tmp_path, 0.1)


def test_a_temporary_that_the_parent_has_not_heard_of_is_removed_too(tmp_path):
    with parent(tmp_path, 'ready()\nwait_for("go")\nwritten("a.engine")\nopen(folder + "/done", "w")\ntime.sleep(60)') as process:
        process.send_signal(signal.SIGSTOP)  # a busy machine
        (tmp_path / "go").touch()
        assert wait_until((tmp_path / "done").exists)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        assert end_of(process)[0] == 143
    assert results(tmp_path) == ["done"]


def test_a_signal_between_reading_and_keeping_loses_no_file(tmp_path):
    """It was lost: the handler ran when os.read had returned, and nobody had what it returned."""
    body = 'ready()\nwait_for("go")\nwritten("a.engine")\ntime.sleep(60)'
    with parent(
        tmp_path,
        body,
        before="""
read = os.read
def read_and_signal(*arguments):
    block = read(*arguments)
    if b"a.engine" in block:
        signal.raise_signal(signal.SIGTERM)
    return block
os.read = read_and_signal
""",
    ) as process:
        (tmp_path / "go").touch()
        assert end_of(process)[0] == 143
    assert results(tmp_path) == []


def test_an_old_file_survives_an_interruption(tmp_path):
    (tmp_path / "a.engine").write_bytes(b"old")
    with parent(tmp_path, HANG) as process:
        process.send_signal(signal.SIGTERM)
        assert end_of(process)[0] == 143
    assert (tmp_path / "a.engine").read_bytes() == b"old" and results(tmp_path) == ["a.engine"]


def test_a_hangup_is_ignored_under_nohup(tmp_path):
    body = f'files = [written("a.engine")]\nready()\nwait_for("go")\n{DONE}'
    with parent(tmp_path, body, ignored=[signal.SIGHUP]) as process:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.05)
        (tmp_path / "go").touch()
        assert end_of(process) == (0, "")
    assert results(tmp_path) == ["a.engine"]


def test_signals_wait_once_the_child_is_done(tmp_path):
    """From there on, files are renamed, which must not be torn apart."""
    supervise(tmp_path, f"files = []\n{DONE}")
    assert [signal.getsignal(number) for number in SIGNALS] == [signal.SIG_IGN] * 3


# ---- a parent that is killed


@pytest.mark.parametrize(
    "body",
    [
        "deaf()\nready()\ntime.sleep(60)",
        "ready()\nctypes.PyDLL(None).sleep(60)",  # holds the interpreter's lock: only the kernel can end it
        "ctypes.CDLL(None).prctl(1, 0)\nready()\ntime.sleep(60)",  # not Linux: only the lifeline can
    ],
    ids=["both", "death signal", "lifeline"],
)
def test_the_child_of_a_killed_parent_dies_with_it(tmp_path, body):
    with parent(tmp_path, body) as process:
        process.kill()
        assert gone(tmp_path)


def test_a_child_whose_parent_is_gone_already_does_not_begin(tmp_path):
    messages, lifeline = os.pipe(), os.pipe()
    environment = {**os.environ, ENVIRONMENT_KEY: f"{messages[1]}:{lifeline[0]}:{os.getpid() + 1}"}
    process = subprocess.run(child(tmp_path, "ready()"), env=environment, pass_fds=(messages[1], lifeline[0]), timeout=20)
    for fd in (*messages, *lifeline):
        os.close(fd)
    assert process.returncode == 1 and not (tmp_path / "ready").exists()


# ---- the channel by itself


def test_a_process_that_nobody_supervises_has_no_channel(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_KEY, raising=False)
    assert channel_module.attach() is None


@pytest.mark.parametrize("value", ["", "abc", "1:0:1", "1:2", "5:x:1", "99999:99998:1", "-1:-1:1", f"{2**70}:3:1", "1:2:3:4"])
def test_a_variable_that_is_no_parents_makes_no_channel(tmp_path, value):
    """In a process of its own: what would be taken for a pipe is not closed, and nothing ends."""
    program = f"import sys; sys.path.insert(0, {ROOT!r})\nfrom onnx2trt.process.channel import attach\nprint(attach())"
    environment = {**os.environ, ENVIRONMENT_KEY: value}
    done = subprocess.run([sys.executable, "-c", program], input="", env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")


@pytest.fixture
def pipe():
    read, write = os.pipe()
    channel = Channel(write)
    with open(read, encoding="utf-8") as stream:
        yield channel, stream
        channel._stream.close()


def test_messages_as_they_stand_on_the_pipe(pipe):
    channel, stream = pipe
    channel.stage("build")
    channel.temporary("/a/.b.tmp")
    channel.publish(("/a/.b.tmp", "/a/b"))
    channel.done({"exit_code": 0}, [("/a/.c.tmp", "/a/c")], "table")
    assert [json.loads(stream.readline()) for _ in range(4)] == [
        {"kind": "stage", "name": "build"},
        {"kind": "temporary", "path": "/a/.b.tmp"},
        {"kind": "publish", "files": [["/a/.b.tmp", "/a/b"]], "required": True},
        {"kind": "done", "result": {"exit_code": 0}, "files": [["/a/.c.tmp", "/a/c"]], "table": "table", "optional": []},
    ]


def test_messages_of_several_threads_do_not_mix(pipe):
    channel, stream = pipe
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(stream.readline() for _ in range(4 * 200)))
    writers = [threading.Thread(target=lambda letter=letter: [channel.stage(letter * 300) for _ in range(200)]) for letter in "abcd"]
    for thread in (reader, *writers):
        thread.start()
    for thread in (reader, *writers):
        thread.join(10)
    sys.setswitchinterval(before)
    assert len(lines) == 4 * 200
    assert {json.loads(line)["name"] for line in lines} == {letter * 300 for letter in "abcd"}


def test_nan_is_no_json(pipe):
    with pytest.raises(ValueError):
        pipe[0].done({"drop": float("nan")}, [], "")


def test_a_message_that_could_not_be_sent_leaves_nothing_behind(pipe):
    channel, stream = pipe
    with contextlib.suppress(ValueError):
        channel.done({"drop": float("nan")}, [], "")
    channel.stage("next")
    assert json.loads(stream.readline()) == {"kind": "stage", "name": "next"}


def test_the_terminal_is_restored_only_where_there_is_one(capsys, monkeypatch):
    restore_terminal()
    assert capsys.readouterr().err == ""
    leader, follower = os.openpty()
    with open(follower, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        restore_terminal()
        shown = os.read(leader, 100)
    os.close(leader)
    assert b"\x1b[?25h" in shown  # the cursor
