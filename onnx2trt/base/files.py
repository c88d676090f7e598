"""Files. Those that we write: a locked temporary beside the final name, synced, then renamed; nothing half-written is ever seen."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import glob
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.locks import abandoned, folder_locked, mark_alive


class Temporary:
    """A file `.NAME.<random>.tmp` beside `final`, locked for as long as its writer lives.

    The lock is the kernel's: it falls with the process, so a later run can tell an abandoned file from a live one.
    """

    def __init__(self, final: str, on_create=None):
        """Create the file.

        Args:
            final: the name asked for; a symbolic link is followed, as a plain write would.
            on_create: called with the temporary's path before the file exists, so that a supervisor can remove it.

        Raises:
            ConversionError: OUTPUT.
        """
        self.final = os.path.realpath(final)
        folder, name = os.path.split(self.final)
        self.path = os.path.join(folder, f".{_shortened(name)}.{secrets.token_hex(6)}.tmp")
        with _as_output_error(final):
            _check_target(self.final)
            if on_create:
                on_create(self.path)
            self._fd = self._create()
            if not os.path.exists(self.path):  # between creating and locking it, another run took it for abandoned
                os.close(self._fd)
                self._fd = self._create()

    def _create(self) -> int:
        fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        mark_alive(fd)
        return fd

    def write(self, *parts) -> None:
        """Write all parts (bytes-like) one after another and sync them to the disk; the lock stays until close."""
        with _as_output_error(self.final):
            for part in parts:
                view = memoryview(part).cast("B")
                while view.nbytes:
                    view = view[os.write(self._fd, view[: 2**26]) :]
            os.fsync(self._fd)

    def is_final(self) -> bool:
        """Whether the file stands under its final name."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self.final))
        except OSError:
            return False

    def discard(self) -> None:
        """Remove the file; harmless when it is gone already."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        self.close()

    def close(self) -> None:
        fd, self._fd = self._fd, -1  # closing a number twice could close somebody else's file
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)


def feed(digest, path: str) -> int:
    """Hash the contents of a file, block by block.

    Returns:
        Its size.

    Raises:
        OSError: it cannot be read.
    """
    size = 0
    with open(path, "rb", buffering=0) as stream:
        while block := stream.read(2**20):
            digest.update(block)
            size += len(block)
    return size


def read_engine(flag: str, path: str) -> bytes:
    """An engine file that the user named.

    Raises:
        ConversionError: VALIDATION, where it cannot be read or is empty; a pipe is not waited for.
    """
    try:
        if not os.path.isfile(path) and os.path.exists(path):
            raise ConversionError(f"{flag} {path} is not a regular file", code=ExitCode.VALIDATION)
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError as error:
        raise ConversionError(f"{flag} {path} cannot be read: {error.strerror}", code=ExitCode.VALIDATION) from None
    if not data:
        raise ConversionError(f"{flag} {path} is empty", code=ExitCode.VALIDATION)
    return data


def sha256(*parts) -> str:
    """SHA-256 over bytes-like parts, one after another."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(memoryview(part).cast("B"))
    return digest.hexdigest()


def _shortened(name: str) -> str:
    """A file name cut so that a temporary's name still fits into 255 bytes."""
    return os.fsdecode(os.fsencode(name)[:200]) if len(os.fsencode(name)) > 200 else name


def check_writable(final: str) -> None:
    """Prove before a long build that `final` can be written, by making a temporary beside it.

    Raises:
        ConversionError: OUTPUT.
    """
    Temporary(final).discard()


def make_folder(path: str) -> None:
    """Make a folder, and those that it is in, where they are missing.

    Raises:
        ConversionError: OUTPUT.
    """
    with _as_output_error(path):
        os.makedirs(path, exist_ok=True)


def write_atomically(final: str, data) -> None:
    """Write `data` under `final` at once or not at all."""
    temporary = Temporary(final)
    try:
        temporary.write(data)
        rename(temporary.path, temporary.final)
    finally:
        temporary.discard()


def rename(temporary: str, final: str) -> None:
    """Move a finished file to its name and sync the folder, so that a power cut cannot undo it.

    Raises:
        ConversionError: OUTPUT.
    """
    final = os.path.realpath(final)
    with _as_output_error(final):
        os.replace(temporary, final)
        folder = os.open(os.path.dirname(final), os.O_RDONLY)
        try:
            os.fsync(folder)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
                raise
        finally:
            os.close(folder)


def rename_together(pairs: list) -> None:
    """Rename all (temporary, final), or none: where one fails, those before it get their old files back.

    No other conversion renames files of the same folder in between. A temporary whose file was taken back is gone.

    Raises:
        ConversionError: OUTPUT, of the first that fails; every name has its old file then, or none as before.
    """
    with folder_locked(pairs[0][1]) if pairs else contextlib.nullcontext(), contextlib.ExitStack() as kept:
        former = [kept.enter_context(_former(os.path.realpath(final))) for _, final in pairs]
        touched: list[tuple[str | None, str]] = []
        try:
            for (temporary, final), old in zip(pairs, former):
                touched.append((old, os.path.realpath(final)))
                rename(temporary, final)
        except BaseException as error:  # a signal's, too
            lost = [text for old, final in reversed(touched) if (text := _put_back(old, final))]
            if lost and isinstance(error, ConversionError):
                raise ConversionError(". ".join((error.message, *lost)), hint=error.hint, code=error.code) from error
            raise


@contextlib.contextmanager
def _former(final: str) -> Iterator[str | None]:
    """A second name of the file that is about to be replaced, for as long as the block takes; None where there is no file.

    A copy where the file system has no hard links, or does not allow one to a file of somebody else.

    Raises:
        ConversionError: OUTPUT, where neither can be made.
    """
    if not os.path.lexists(final):
        yield None
        return
    folder, name = os.path.split(final)
    second = os.path.join(folder, f".{_shortened(name)}.{secrets.token_hex(6)}.tmp")
    try:
        with _as_output_error(final):
            try:
                os.link(final, second)
            except OSError:
                shutil.copy2(final, second)
        yield second
    finally:
        with contextlib.suppress(OSError):
            os.unlink(second)


def _put_back(old: str | None, final: str) -> str:
    """Undo one rename, which may not have been done.

    Returns:
        What is lost, as a sentence without its full stop; empty where nothing is.
    """
    try:
        if old is None:
            os.unlink(final)
        else:
            os.replace(old, final)  # does nothing where both are names of one file
    except FileNotFoundError:
        return ""
    except OSError as again:
        if old is not None and _same_content(old, final):
            return ""
        return f"{final} is already the new file, and cannot be taken back ({again.strerror})"
    return ""


def _same_content(one: str, other: str) -> bool:
    """Whether two files are one, or a copy of it: a file that cannot be replaced was not replaced before, either."""
    try:
        return os.path.samefile(one, other) or filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def remove_abandoned(final: str) -> None:
    """Remove temporaries of `final` whose writer is dead (killed by SIGKILL, or a power cut)."""
    folder, name = os.path.split(os.path.realpath(final))
    for path in glob.glob(os.path.join(glob.escape(folder), f".{glob.escape(_shortened(name))}.????????????.tmp")):
        with abandoned(path) as dead, contextlib.suppress(OSError):
            if dead:
                os.unlink(path)


def _check_target(final: str) -> None:
    """An existing target must be a regular file that a rename may replace: not a device, a folder, a mount point or an immutable file.

    Raises:
        ConversionError: OUTPUT.
    """
    try:
        mode = os.stat(final).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise ConversionError(f"cannot write {final}: it is {kind}", code=ExitCode.OUTPUT)
    if final in _mount_points():
        raise ConversionError(
            f"cannot write {final}: something is mounted there, so that no other file can take its place",
            hint="Mount the folder instead of the file (docker run -v FOLDER:FOLDER), or choose another name.",
            code=ExitCode.OUTPUT,
        )
    try:
        os.rmdir(final)  # removes no file; but the kernel looks first whether this name may be taken away at all
    except PermissionError as error:
        raise ConversionError(
            f"cannot write {final}: the file that is there must not be replaced ({error.strerror})",
            hint="It is immutable (lsattr shows it), or somebody else's in a sticky folder: remove it, or choose another name.",
            code=ExitCode.OUTPUT,
        ) from None
    except OSError:  # no folder, as it should be
        pass


def _mount_points() -> set[str]:
    """Where something is mounted, files included; empty where the system does not tell."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
            points = [line.split(" ")[4] for line in stream]
    except (OSError, IndexError):
        return set()
    return {re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), point) for point in points}


@contextlib.contextmanager
def _as_output_error(path: str):
    try:
        yield
    except OSError as error:
        hints = {
            errno.ENOSPC: "Free some space or choose another folder.",
            errno.EDQUOT: "The disk quota is used up: free some space or choose another folder.",
            errno.EFBIG: "The file size limit (ulimit -f) is smaller than the file.",
            errno.ENOENT: "The folder does not exist: create it first.",
            errno.EACCES: "Choose a folder that you may write to.",
            errno.EPERM: "Choose a folder that you may write to.",
            errno.EROFS: "The file system is read-only: choose another folder.",
            errno.ENAMETOOLONG: "Choose a shorter name.",
        }
        raise ConversionError(
            f"cannot write {path}: {error.strerror or error}", hint=hints.get(error.errno, ""), code=ExitCode.OUTPUT
        ) from error
