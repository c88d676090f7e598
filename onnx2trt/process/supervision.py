"""The parent: runs one child that does everything heavy, outlives its crashes, obeys signals at once, renames finished files.

TensorRT can abort or segfault, and swallows Ctrl-C for minutes; nothing of that may reach the user or leave half a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading

from onnx2trt.base import files
from onnx2trt.base.errors import ConversionError, ExitCode, unforeseen
from onnx2trt.base.memory import limited
from onnx2trt.base.signals import ENDING
from onnx2trt.base.stage_names import BEFORE_STAGES, INSPECTING_STAGE, PARSING_STAGES, STARTING_STAGE
from onnx2trt.process.channel import ENVIRONMENT_KEY
from onnx2trt.process.scratch import Scratch

TEARDOWN_SECONDS = 5.0  # a child that has delivered its result may take this long to go


class Interrupted(Exception):
    """A signal asked us to stop."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum


class Supervisor:
    """Runs one child to its end. Use once."""

    def __init__(self) -> None:
        self.stage = BEFORE_STAGES
        self.outcome: dict | None = None  # the child's "done" message
        self._temporaries: set[str] = set()
        self._child: subprocess.Popen | None = None
        self._messages: int | None = None  # read end of the pipe
        self._lifeline: int | None = None  # write end of the pipe by whose end the child knows of ours
        self._unread = b""
        self._scratch: Scratch | None = None

    def run(self, command: list[str], add=lambda outcome: []) -> dict:
        """Start `command`, follow its messages, rename what it finished.

        Args:
            add: makes more files of the "done" message, before any file has its name; returns (temporary, final) of each.

        Returns:
            The child's "done" message: result, files, table; and `lost`, of each optional file that has not got its name: why.

        Raises:
            ConversionError: the child died, or a finished file could not be renamed.
            Interrupted: SIGINT, SIGTERM or SIGHUP; the child is dead and no file of it is left.
        """
        try:
            return self._run(command, add)
        finally:
            if self._scratch:
                self._scratch.remove()
            self._close()

    def _run(self, command: list[str], add) -> dict:
        code = 0
        try:
            with _signals_raise():
                self._start(command)
                self._follow()
                if self.outcome is None:
                    code = self._child.wait()
        except BaseException:
            self._kill()
            self._drain()
            self._remove_temporaries()
            raise
        try:
            if self.outcome is None:
                raise self._death(code)
            finished = [*self.outcome["files"], *add(self.outcome)]
            files.rename_together(finished)  # the child lives, and with it the locks by which others know that its files are no leftovers
            self._temporaries -= {temporary for temporary, _ in finished}
            self.outcome["lost"] = [*filter(None, map(self._rename_optional, self.outcome["optional"]))]
        finally:
            self._let_go()
            self._remove_temporaries()
        return self.outcome

    def _start(self, command: list[str]) -> None:
        """Start the child in a session of its own: Ctrl-C at the terminal reaches only us.

        Raises:
            ConversionError: MACHINE, where the system has no process or no file for it.
        """
        with contextlib.ExitStack() as childs, _as_machine_error():
            self._messages, messages_write = os.pipe()
            childs.callback(os.close, messages_write)
            lifeline_read, self._lifeline = os.pipe()
            childs.callback(os.close, lifeline_read)
            self._scratch = Scratch()
            own = {"TMPDIR": self._scratch.path} if self._scratch.path else {}
            environment = {**os.environ, **own, ENVIRONMENT_KEY: f"{messages_write}:{lifeline_read}:{os.getpid()}"}
            self._child = subprocess.Popen(
                command,
                env=environment,
                pass_fds=(messages_write, lifeline_read),
                stdin=subprocess.DEVNULL,
                stdout=2,  # libraries print to stdout at will; ours carries only results
                start_new_session=True,
            )

    def _follow(self) -> None:
        """Obey messages until the child is done or gone."""
        while self.outcome is None and self._hear():
            while self.outcome is None and b"\n" in self._unread:
                line, _, rest = self._unread.partition(b"\n")
                self._obey(json.loads(line))
                self._unread = rest  # only now: what an interruption leaves here is looked at again by _drain

    def _hear(self) -> bool:
        """Wait for what the child says next, and keep it; False: it is gone.

        A signal may end the waiting, but not come between reading and keeping: what was read would be lost, and with it the name of a file
        that is to be removed.
        """
        waiting = select.poll()
        waiting.register(self._messages, select.POLLIN)
        waiting.poll()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            block = os.read(self._messages, 2**16)
            self._unread += block
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return bool(block)

    def _obey(self, message: dict) -> None:
        if message["kind"] == "stage":
            self.stage = message["name"]
        elif message["kind"] == "temporary":
            self._temporaries.add(message["path"])
        elif message["kind"] == "publish":
            self._publish(message["files"], message["required"])
        elif message["kind"] == "done":
            self.outcome = message
        elif message["kind"] == "failed":
            raise ConversionError(message["message"], hint=message["hint"], code=message["code"])
        elif message["kind"] == "exhausted":
            raise unforeseen(MemoryError())

    def _rename_optional(self, pair: tuple[str, str]) -> str:
        """Why it could not be done, in words; a temporary that is left is removed with the others."""
        try:
            files.rename_together([pair])
        except ConversionError as error:
            return error.message
        self._temporaries.discard(pair[0])
        return ""

    def _publish(self, finished: list, required: bool) -> None:
        try:
            files.rename_together(finished)
        except ConversionError:
            if required:
                raise
            for temporary, _ in finished:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
        self._temporaries -= {temporary for temporary, _ in finished}

    def _drain(self) -> None:
        """Learn of the files that the child, dead by now, had spoken of in messages that nobody has read."""
        with contextlib.suppress(OSError, TypeError):
            os.set_blocking(self._messages, False)
            while block := os.read(self._messages, 2**16):
                self._unread += block
        for line in self._unread.split(b"\n")[:-1]:
            message = json.loads(line)
            if message["kind"] == "temporary":
                self._temporaries.add(message["path"])

    def _let_go(self) -> None:
        """End a child that waits for us to be done with its files; it may need a while to give the GPU back."""
        self._close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs in a library's teardown; its result is complete
            self._child.wait(timeout=TEARDOWN_SECONDS if self.outcome else 0)
        self._kill()

    def _close(self) -> None:
        """Close our ends of the pipes; for the child it is as if we were gone."""
        for number in (self._messages, self._lifeline):
            if number is not None:
                os.close(number)
        self._messages = self._lifeline = None

    def _kill(self) -> None:
        """End the child with everything it started."""
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=0.3)  # in an uninterruptible driver call: the kernel buries it later

    def _remove_temporaries(self) -> None:
        for path in self._temporaries:
            with contextlib.suppress(OSError):
                os.unlink(path)
        self._temporaries.clear()

    def _death(self, code: int) -> ConversionError:
        """What to say of a child that ended without a result."""
        at_fault = ExitCode.MODEL if self.stage in PARSING_STAGES else ExitCode.BUILD
        if self.stage in (BEFORE_STAGES, INSPECTING_STAGE, STARTING_STAGE):
            at_fault = ExitCode.MACHINE
        if code >= 0:
            return ConversionError(
                f"the conversion process ended with code {code} during stage '{self.stage}' and left no result",
                hint=limited() or "Run again with -vv: the last messages tell what it was doing.",
                code=at_fault,
            )
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = "Run again with -vv to see the library's last messages."
        if limited():
            hint = limited()
        elif -code == signal.SIGKILL:
            hint = "Nobody asked us to stop, so this is most likely the system's out-of-memory killer: free memory or use a smaller batch."
        elif self.stage == STARTING_STAGE:
            hint = "Most likely the driver is too old for this TensorRT: update it, or install a TensorRT for its CUDA version."
        elif self.stage == INSPECTING_STAGE:
            hint = "The engine file is damaged, or was made by another version: compare its sha256, or build it again here."
        elif at_fault is ExitCode.MODEL:
            hint = "The file may be damaged in a way that crashes the parser: check it with onnx.checker, or export it again."
        return ConversionError(f"the library crashed with {name} during stage '{self.stage}'", hint=hint, code=at_fault)


@contextlib.contextmanager
def _as_machine_error():
    try:
        yield
    except (OSError, MemoryError) as error:
        known = unforeseen(error)
        raise ConversionError(f"no process can be started: {known.message}", hint=known.hint, code=ExitCode.MACHINE) from None


@contextlib.contextmanager
def _signals_raise():
    """Turn SIGINT, SIGTERM and SIGHUP into Interrupted inside the block; afterwards they wait until we have ended."""
    if threading.current_thread() is not threading.main_thread():  # no other thread may set handlers, or is interrupted by signals
        yield
        return
    caught = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]

    interrupted: list[int] = []

    def interrupt(signum, _frame):
        if not interrupted:  # one is enough: a second Ctrl-C must not break the cleaning up
            interrupted.append(signum)
            raise Interrupted(signum)

    for number in caught:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        interrupted.append(0)  # renaming takes milliseconds and must not be torn apart
        before = signal.pthread_sigmask(signal.SIG_BLOCK, caught)  # also runs the handler of one that has come already
        for number in caught:  # Python takes back other handlers when it ends: a signal would kill it there
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def restore_terminal() -> None:
    """Show the cursor again and clear the line: a killed child leaves its progress display behind."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[2K\x1b[?25h")
            sys.stderr.flush()
