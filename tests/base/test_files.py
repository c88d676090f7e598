"""base/files.py: a file appears whole or not at all, and nothing of ours stays behind."""

import contextlib
import errno
import io
import os
import stat
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from helpers import ROOT, pipe_at, refused

from onnx2trt.base import files, locks
from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.files import Temporary, check_writable, remove_abandoned, rename, rename_together, write_atomically
from onnx2trt.base.locks import folder_locked


def names(folder) -> list[str]:
    return sorted(os.listdir(folder))


@contextlib.contextmanager
def not_permitted(folder):
    """Nobody may write to this folder; root, who may anyway, becomes nobody for as long."""
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


def in_process(program: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run a program that imports onnx2trt.base.files; its last words are on stdout."""
    start = f"import sys; sys.path.insert(0, {ROOT!r})\nfrom onnx2trt.base import files\nfrom onnx2trt.base.errors import ConversionError\n"
    return subprocess.run([sys.executable, "-I", "-S", "-c", start + program, *arguments], capture_output=True, text=True, timeout=20)


def test_a_new_file_is_there_with_its_content_alone(tmp_path):
    write_atomically(str(tmp_path / "a"), b"content")
    assert (tmp_path / "a").read_bytes() == b"content"
    assert names(tmp_path) == ["a"]


def test_an_old_file_is_replaced_as_a_whole(tmp_path):
    (tmp_path / "a").write_bytes(b"something longer than the new content")
    write_atomically(str(tmp_path / "a"), b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_reader_of_the_old_file_keeps_it(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with open(tmp_path / "a", "rb") as reader:
        write_atomically(str(tmp_path / "a"), b"new")
        assert reader.read() == b"old"


@pytest.mark.parametrize(
    "data", [b"", bytearray(b"x"), memoryview(b"xy"), np.arange(6, dtype=np.float16).reshape(2, 3)], ids=lambda d: type(d).__name__
)
def test_anything_that_holds_bytes_can_be_written(tmp_path, data):
    write_atomically(str(tmp_path / "a"), data)
    assert (tmp_path / "a").read_bytes() == bytes(data)


def test_parts_follow_each_other_even_where_the_system_writes_less_than_asked(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(files.os, "write", lambda fd, data: write(fd, data[:3]))
    temporary, wide = Temporary(str(tmp_path / "a")), np.arange(5, dtype=np.int32)
    temporary.write(b"0123456789", wide, b"abc")
    rename(temporary.path, temporary.final)
    temporary.close()
    assert (tmp_path / "a").read_bytes() == b"0123456789" + wide.tobytes() + b"abc"


def test_nothing_stands_under_the_name_before_the_rename(tmp_path):
    temporary = Temporary(str(tmp_path / "a.engine"))
    temporary.write(b"half")
    (name,) = names(tmp_path)
    assert name.startswith(".a.engine.") and name.endswith(".tmp")
    assert os.path.dirname(temporary.path) == os.path.dirname(temporary.final)  # one file system: the rename is atomic
    temporary.discard()
    assert names(tmp_path) == []


def test_data_is_on_the_disk_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def note_sync(fd):
        done.append("sync folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else f"sync {os.fstat(fd).st_size} bytes")
        fsync(fd)

    def note_replace(*paths):
        done.append("rename")
        replace(*paths)

    monkeypatch.setattr(files.os, "fsync", note_sync)
    monkeypatch.setattr(files.os, "replace", note_replace)
    write_atomically(str(tmp_path / "a"), b"12345")
    assert done == ["sync 5 bytes", "rename", "sync folder"]


def test_two_writers_of_one_name_do_not_meet(tmp_path):
    first, second = (Temporary(str(tmp_path / "a")) for _ in range(2))
    first.write(b"first")
    second.write(b"second")
    for temporary in (second, first):
        rename(temporary.path, temporary.final)
        temporary.discard()
    assert (tmp_path / "a").read_bytes() == b"first"  # the last complete writer wins
    assert names(tmp_path) == ["a"]


def test_a_new_file_has_the_rights_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(str(tmp_path / "a"), b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o640


@pytest.mark.parametrize("existing", [True, False])
def test_a_link_is_followed_and_stays_a_link(tmp_path, existing):
    (tmp_path / "real").mkdir()
    if existing:
        (tmp_path / "real" / "a").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a")
    write_atomically(str(tmp_path / "link"), b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["link", "real"] and names(tmp_path / "real") == ["a"]


def test_the_temporary_of_a_link_stands_beside_the_real_file(tmp_path):
    """On the real file's file system, so that the rename is atomic."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a")
    temporary = Temporary(str(tmp_path / "link"))
    assert names(tmp_path / "real") == [os.path.basename(temporary.path)]
    rename(temporary.path, str(tmp_path / "link"))
    temporary.close()
    assert (tmp_path / "link").is_symlink() and names(tmp_path / "real") == ["a"]


def test_the_supervisor_hears_of_a_temporary_before_it_exists(tmp_path):
    heard = []
    temporary = Temporary(str(tmp_path / "a"), lambda path: heard.append((path, os.path.exists(path))))
    assert heard == [(temporary.path, False)]
    assert os.path.exists(temporary.path)
    temporary.discard()


@pytest.mark.parametrize("write", [check_writable, lambda path: write_atomically(path, b"x")], ids=["check_writable", "write_atomically"])
class TestRefusal:
    def test_a_folder_that_is_not_there(self, tmp_path, write):
        with refused(ExitCode.OUTPUT, str(tmp_path / "no" / "a"), hint="create it first"):
            write(str(tmp_path / "no" / "a"))

    def test_a_file_in_the_place_of_the_folder(self, tmp_path, write):
        (tmp_path / "file").write_bytes(b"kept")
        with refused(ExitCode.OUTPUT, str(tmp_path / "file" / "a"), "Not a directory"):
            write(str(tmp_path / "file" / "a"))
        assert (tmp_path / "file").read_bytes() == b"kept"

    def test_a_folder_in_the_place_of_the_file(self, tmp_path, write):
        (tmp_path / "a").mkdir()
        with refused(ExitCode.OUTPUT, str(tmp_path / "a"), "it is a folder"):
            write(str(tmp_path / "a"))
        assert names(tmp_path) == ["a"]

    def test_a_device(self, tmp_path, write):
        with refused(ExitCode.OUTPUT, "/dev/full", "not a regular file"):
            write("/dev/full")
        assert stat.S_ISCHR(os.stat("/dev/full").st_mode)

    def test_a_pipe(self, tmp_path, write):
        with pipe_at(tmp_path / "a") as path, refused(ExitCode.OUTPUT, path, "not a regular file"):
            write(path)

    def test_a_folder_without_permission(self, tmp_path, write):
        (tmp_path / "a").write_bytes(b"old")
        with not_permitted(tmp_path), refused(ExitCode.OUTPUT, "Permission denied", hint="you may write to"):
            write(str(tmp_path / "a"))
        assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a"]

    def test_a_name_that_is_too_long(self, tmp_path, write):
        with refused(ExitCode.OUTPUT, "File name too long", hint="shorter name"):
            write(str(tmp_path / ("a" * 300)))

    def test_a_link_that_leads_to_itself(self, tmp_path, write):
        (tmp_path / "a").symlink_to("a")
        with refused(ExitCode.OUTPUT, str(tmp_path / "a"), "symbolic links"):
            write(str(tmp_path / "a"))


def test_check_writable_leaves_everything_as_it_is(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    check_writable(str(tmp_path / "a"))
    check_writable(str(tmp_path / "b"))
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    """A file size limit fails a write half-way, as a full disk does."""
    (tmp_path / "a").write_bytes(b"old")
    program = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    files.write_atomically(sys.argv[1], bytes(5000))
except ConversionError as error:
    print(int(error.code), error.message, "|", error.hint)
"""
    told = in_process(program, str(tmp_path / "a")).stdout
    assert told.startswith(f"8 cannot write {tmp_path}") and "File too large" in told and "ulimit -f" in told
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EPERM, "you may write to"),
        (errno.EIO, ""),
    ],
)
def test_a_failing_write_is_explained(tmp_path, monkeypatch, number, hint):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "write", fail)
    with refused(ExitCode.OUTPUT, str(tmp_path / "a"), os.strerror(number), hint=hint):
        write_atomically(str(tmp_path / "a"), b"x")
    assert names(tmp_path) == []


def test_a_rename_that_fails_is_explained(tmp_path):
    temporary = Temporary(str(tmp_path / "a"))
    (tmp_path / "a").mkdir()
    with refused(ExitCode.OUTPUT, str(tmp_path / "a"), "Is a directory"):
        rename(temporary.path, temporary.final)
    temporary.discard()


@pytest.mark.parametrize(("number", "fails"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_folder_that_cannot_be_synced_is_an_error_only_where_it_could_be(tmp_path, monkeypatch, number, fails):
    def fsync(fd):
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", fsync)
    with refused(ExitCode.OUTPUT, os.strerror(number)) if fails else contextlib.nullcontext():
        write_atomically(str(tmp_path / "a"), b"x")


def abandon(final) -> None:
    """A writer that is killed with its temporary half-written."""
    program = "import os, signal\nt = files.Temporary(sys.argv[1])\nt.write(b'half')\nos.kill(os.getpid(), signal.SIGKILL)"
    assert in_process(program, str(final)).returncode == -9


def test_the_temporary_of_a_dead_writer_is_removed_and_that_of_a_live_one_stays(tmp_path):
    final = tmp_path / "a[1]*.engine"  # characters that mean something to glob
    abandon(final)
    live = Temporary(str(final))
    assert len(names(tmp_path)) == 2
    remove_abandoned(str(final))
    assert names(tmp_path) == [os.path.basename(live.path)]
    live.write(b"whole")
    rename(live.path, live.final)
    live.close()
    assert final.read_bytes() == b"whole"


def test_a_temporary_that_is_removed_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    """Another run that starts between the two takes it for abandoned."""
    final, mark, others = str(tmp_path / "a"), files.mark_alive, []

    def after_another(fd):
        if not others:
            others.append(remove_abandoned(final))
            assert names(tmp_path) == []
        mark(fd)

    monkeypatch.setattr(files, "mark_alive", after_another)
    temporary = Temporary(final)
    temporary.write(b"whole")
    remove_abandoned(final)
    rename(temporary.path, final)
    assert (tmp_path / "a").read_bytes() == b"whole" and names(tmp_path) == ["a"]
    temporary.close()


def two_files(folder) -> list[tuple[str, str]]:
    made = [Temporary(str(folder / name)) for name in ("a.engine", "a.json")]
    for temporary in made:
        temporary.write(b"new")
    return [(temporary.path, temporary.final) for temporary in made]


def test_files_that_belong_together_are_renamed_by_one_run_after_another(tmp_path):
    """Else the engine of one run may stand beside the description of another's."""
    pairs = two_files(tmp_path)
    with folder_locked(str(tmp_path / "other")):
        waiting = threading.Thread(target=rename_together, args=(pairs,))
        waiting.start()
        time.sleep(0.2)
        assert not any(os.path.exists(final) for _, final in pairs)
    waiting.join(5)
    assert names(tmp_path) == ["a.engine", "a.json"], "and no file of the lock is left"


def test_nobody_is_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BRIEF_SECONDS", 0.1)
    with folder_locked(str(tmp_path / "a")):
        rename_together(two_files(tmp_path))
    assert names(tmp_path) == ["a.engine", "a.json"]


def test_a_pipe_of_a_temporarys_name_is_not_waited_for(tmp_path):
    with pipe_at(tmp_path / ".a.0123456789ab.tmp") as path:
        os.chmod(path, 0o444)
        remove_abandoned(str(tmp_path / "a"))


def test_only_temporaries_of_this_name_are_removed(tmp_path):
    abandon(tmp_path / "other")
    (tmp_path / ".a.notes.tmp").write_bytes(b"of the user")
    (tmp_path / "a").write_bytes(b"result")
    before = names(tmp_path)
    remove_abandoned(str(tmp_path / "a"))
    assert names(tmp_path) == before


def test_abandoned_temporaries_are_found_behind_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a")
    abandon(tmp_path / "link")
    remove_abandoned(str(tmp_path / "link"))
    assert names(tmp_path / "real") == []


def test_remove_abandoned_in_a_missing_folder_is_no_error(tmp_path):
    remove_abandoned(str(tmp_path / "no" / "a"))


def test_discard_after_the_file_is_gone_is_harmless(tmp_path):
    temporary = Temporary(str(tmp_path / "a"))
    os.unlink(temporary.path)
    temporary.discard()
    assert names(tmp_path) == []


def test_a_second_discard_closes_nobody_elses_file(tmp_path):
    temporary = Temporary(str(tmp_path / "a"))
    temporary.discard()
    with open(tmp_path / "b", "wb") as other:  # gets the number that has just become free
        temporary.discard()
        other.write(b"x")


def test_a_long_name_in_another_script(tmp_path):
    name = "模" * 80  # 240 bytes: the file system takes 255
    (tmp_path / name).write_bytes(b"the name itself is fine")
    write_atomically(str(tmp_path / name), b"new")
    assert (tmp_path / name).read_bytes() == b"new"


def three_pairs(folder) -> list[tuple[str, str]]:
    """Temporaries of a, b and c; of b there is no old file."""
    for name in "ac":
        (folder / name).write_bytes(b"old " + name.encode())
    for name in "abc":
        (folder / f"{name}.new").write_bytes(b"new " + name.encode())
    return [(str(folder / f"{name}.new"), str(folder / name)) for name in "abc"]


def stand(folder) -> str:
    """Whether all files are old or all are new; the names otherwise."""
    there = {name: (folder / name).read_bytes().split()[0].decode() for name in "abc" if (folder / name).exists()}
    return {("a", "c"): "old", ("a", "b", "c"): "new"}.get((*there,), "mixed") if len({*there.values()}) == 1 else str(there)


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("call", ["link", "replace", "fsync", "open", "close"])
@pytest.mark.parametrize("number", range(1, 9))
def test_whatever_fails_once_all_files_are_old_or_all_are_new(tmp_path, monkeypatch, call, number, links):
    pairs, real, calls = three_pairs(tmp_path), getattr(os, call), []

    def once(*args, **keywords):
        calls.append(args)
        if len(calls) == number:
            if call == "close":
                real(*args)  # a descriptor is closed whatever close says
            raise OSError(errno.EIO, "Input/output error")
        return real(*args, **keywords)

    def without(*_):
        raise OSError(errno.EPERM, "no hard links here")

    if not links:
        monkeypatch.setattr(files.os, "link", without)
    if links or call != "link":
        monkeypatch.setattr(files.os, call, once)
    failed = False
    try:
        rename_together(pairs)
    except Exception as error:
        failed = True
        assert getattr(error, "code", None) == ExitCode.OUTPUT
    monkeypatch.undo()
    assert stand(tmp_path) == ("old" if failed else "new")
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]


def test_a_signal_between_two_renames_brings_the_old_files_back(tmp_path, monkeypatch):
    pairs, rename_one = three_pairs(tmp_path), files.rename

    def interrupted(temporary, final):
        rename_one(temporary, final)
        if final.endswith("b"):
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rename_together(pairs)
    assert stand(tmp_path) == "old"


def test_a_file_that_cannot_be_taken_back_is_named(tmp_path, monkeypatch):
    pairs, replace = three_pairs(tmp_path), os.replace

    def only_the_first(source, target):
        if source == pairs[0][0]:
            return replace(source, target)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.os, "replace", only_the_first)
    with pytest.raises(ConversionError) as caught:
        rename_together(pairs)
    message = caught.value.message
    assert f"{tmp_path / 'a'} is already the new file" in message and str(tmp_path / "c") not in message


def test_a_mount_point_is_refused_before_the_work(tmp_path, monkeypatch):
    """As docker run -v FILE:FILE makes it."""
    target = tmp_path / "a b.engine"
    target.write_bytes(b"old")
    monkeypatch.setattr(
        files,
        "open",
        lambda *_, **__: io.StringIO(f"1 2 3:4 / {str(target).replace(' ', chr(92) + '040')} rw - ext4 d rw\n"),
        raising=False,
    )
    with refused(ExitCode.OUTPUT, "mounted"):
        check_writable(str(target))
    check_writable(str(tmp_path / "a"))
    assert target.read_bytes() == b"old"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file that is somebody else's")
def test_somebody_elses_file_in_a_sticky_folder_is_refused_before_the_work(tmp_path):
    folder = tmp_path / "sticky"
    folder.mkdir()
    folder.chmod(0o1777)
    (folder / "a").write_bytes(b"old")
    for above in (tmp_path, *tmp_path.parents):
        if not above.stat().st_mode & 0o001:  # pytest keeps its folders to itself, one more of them for each process
            above.chmod(above.stat().st_mode | 0o011)
    os.seteuid(65534)
    try:
        with refused(ExitCode.OUTPUT, "must not be replaced"):
            check_writable(str(folder / "a"))
    finally:
        os.seteuid(0)
    assert names(folder) == ["a"]
