"""base/system.py: where the tool cannot start it says so, and no code is kept for such a system."""

import ast
import re
import subprocess
import sys

import pytest
from command import IMPORTABLE, ROOT
from helpers import refused

from onnx2trt.base.errors import ExitCode
from onnx2trt.base.system import DEEP_STACK, check_system

PACKAGE = ROOT / "onnx2trt"
BRANCH = re.compile(r"sys\.platform|os\.name\b|platform\.(system|uname)|win32|msvcrt|LOCALAPPDATA|O_BINARY|\.dll\b|Windows")
SAYS_SO = "base/system.py"


def test_this_system_will_do():
    check_system()


def test_a_system_without_posix_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with refused(ExitCode.MACHINE, "does not run on Windows", hint="WSL2"):
        check_system()


def command_without_posix(*arguments) -> subprocess.CompletedProcess:
    missing = "for name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'): sys.modules[name] = None\n"
    program = f"{IMPORTABLE}{missing}from onnx2trt.cli import main\nsys.exit(main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)


def test_the_command_says_so_at_once():
    done = command_without_posix("--onnx", "m.onnx")
    assert done.returncode == ExitCode.MACHINE and "does not run on Windows" in done.stderr and "hint: Use WSL2" in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_its_help_is_shown_everywhere():
    done = command_without_posix("--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: onnx2trt")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_branch_is_left_for_a_system_on_which_the_tool_cannot_start(path):
    """Nobody here can run it, so nobody would see it break."""
    text = path.read_text()
    found = [line for line in text.splitlines() if BRANCH.search(line)]
    assert not found or path.relative_to(PACKAGE).as_posix() == SAYS_SO, found
    for attempt in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Try)):
        caught = {name.id for handler in attempt.handlers for name in ast.walk(handler.type or ast.Name("")) if isinstance(name, ast.Name)}
        if caught & {"ImportError", "ModuleNotFoundError"}:
            imported = [alias.name for node in attempt.body if isinstance(node, ast.Import) for alias in node.names]
            assert not sys.stdlib_module_names.intersection(imported), f"{imported}: the standard library is there wherever the tool starts"


DEEP = """
import resource, sys
resource.setrlimit(resource.RLIMIT_STACK, (int(sys.argv[1]), resource.getrlimit(resource.RLIMIT_STACK)[1]))
from onnx2trt.base.system import deepen_stack
deepen_stack()
sys.setrecursionlimit(10**6)
import ctypes
callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
deeper = callback(lambda depth: deeper(depth - 1) if depth else 7)
print(deeper(30_000), resource.getrlimit(resource.RLIMIT_STACK)[0])
"""


def test_the_stack_grows_further_than_the_shell_allows():
    """Recursion through C, as a library's, that crashes within 8 MiB."""
    done = subprocess.run([sys.executable, "-c", IMPORTABLE + DEEP, str(2**23)], capture_output=True, text=True)
    assert done.stdout.split() == ["7", str(DEEP_STACK)], done.stderr
