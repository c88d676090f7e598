"""Files. Those that we write: a locked temporary beside the final name, synced, then renamed; nothing half-written is ever seen."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import secrets
import stat

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
    """Rename (temporary, final) one after another; no other conversion renames files of the same folder in between.

    Raises:
        ConversionError: OUTPUT, at the first that fails.
    """
    with folder_locked(pairs[0][1]) if pairs else contextlib.nullcontext():
        for temporary, final in pairs:
            rename(temporary, final)


def remove_abandoned(final: str) -> None:
    """Remove temporaries of `final` whose writer is dead (killed by SIGKILL, or a power cut)."""
    folder, name = os.path.split(os.path.realpath(final))
    for path in glob.glob(os.path.join(glob.escape(folder), f".{glob.escape(_shortened(name))}.????????????.tmp")):
        with abandoned(path) as dead, contextlib.suppress(OSError):
            if dead:
                os.unlink(path)


def _check_target(final: str) -> None:
    """An existing target must be a regular file: a rename would replace a device or a folder's name."""
    try:
        mode = os.stat(final).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise ConversionError(f"cannot write {final}: it is {kind}", code=ExitCode.OUTPUT)


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
