"""The import map: who may import whom, and that --help and bad arguments need nothing but the standard library."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("calibration", "preprocess", "validate")
OWN = ("core", "graph", "trt", "report", "stages", "onnx2trt", *STAGES)

# module or room -> what of ours it may import (itself included); the first entry that matches a file decides
MAY_IMPORT = {
    "core": {"core"},
    "report": {"core", "report"},
    "graph": {"core", "graph"},
    "trt": {"core", "trt"},
    "preprocess.py": {"core"},
    "calibration.py": {"core"},
    "validate.py": {"core", "preprocess"},
    "stages": {"core", "graph", "trt", "report", "stages", *STAGES},
    "onnx2trt.py": {"core", "report", "stages"},
}

# third-party module -> the only files that may import it
OWNERS = {
    "tensorrt": {"trt/library.py"},
    "tensorrt_rtx": {"trt/library.py"},
    "onnxruntime": {"model/session.py"},
    "cv2": {"base/opencv.py"},
    "rich": {"report/console.py", "report/table.py"},
    "jinja2": {"report/html.py"},
    "matplotlib": {"report/plots.py"},
    "onnx": {"graph/", "conversion/job.py"},
    "pycuda": {"trt/memory.py"},
    "cuda": {"trt/memory.py"},
}

# what the supervising parent loads: nothing but the standard library
STANDARD_ONLY = (
    "onnx2trt.py",
    "plan/arguments.py",
    "plan/argument_types.py",
    "process/channel.py",
    "base/errors.py",
    "base/files.py",
    "plan/plan.py",
    "plan/rules.py",
    "process/scratch.py",
    "process/supervision.py",
    "base/timing_cache.py",
    "plan/key.py",
    "report/result.py",
    "base/model_info.py",
)


def product_files():
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name in OWN]
    return sorted([*ROOT.glob("*.py"), *(file for folder in folders for file in folder.rglob("*.py"))])


def imports_of(path: Path):
    """(module, at the top of the file) of every import."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module, id(node) in top


@pytest.mark.parametrize("path", product_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_map_is_true(path):
    relative = path.relative_to(ROOT).as_posix()
    allowed = next(may for place, may in MAY_IMPORT.items() if relative == place or relative.startswith(place + "/"))
    for module, at_top in imports_of(path):
        package = module.split(".")[0]
        if package in OWN:
            assert package in allowed, f"{relative} imports {module}"
        elif package in OWNERS:
            assert any(relative.startswith(owner) for owner in OWNERS[package]), f"{relative} imports {module}"
        if relative in STANDARD_ONLY and at_top:
            assert package in sys.stdlib_module_names or module in _standard_only_modules(), f"{relative} imports {module} at its top"


def _standard_only_modules():
    packages = {"core", "report"}
    return packages | {name.removesuffix(".py").replace("/", ".") for name in STANDARD_ONLY}


def test_every_python_file_of_the_root_is_on_the_map():
    assert {path.name for path in ROOT.glob("*.py")} == {"onnx2trt.py", "preprocess.py", "calibration.py", "validate.py"}


@pytest.mark.parametrize(
    "arguments, code, stream", [(["--help"], 0, "stdout"), ([], 2, "stderr"), (["--onnx", "m.onnx", "--std", "0"], 2, "stderr")]
)
def test_help_and_wrong_flags_need_no_package(arguments, code, stream):
    done = subprocess.run([sys.executable, "-S", "-E", str(ROOT / "onnx2trt.py"), *arguments], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "usage: onnx2trt.py" in getattr(done, stream)


def test_importing_the_entry_loads_nothing_heavy():
    heavy = {"numpy", "onnx", "onnxruntime", "cv2", "tensorrt", "tensorrt_rtx", "rich", "jinja2", "matplotlib"}
    code = f"import sys, onnx2trt; print(sorted({{name.split('.')[0] for name in sys.modules}} & {heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_help_loads_nothing_that_only_a_conversion_needs():
    """Each of these costs more than argparse itself."""
    slow = {"ctypes", "dataclasses", "hashlib", "json", "shutil", "subprocess", "plan.plan", "process.supervision"}
    code = f"import sys, onnx2trt\ntry: onnx2trt.main(['--help'])\nexcept SystemExit: print('loaded', sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "loaded []"


@pytest.mark.parametrize("path", product_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_and_functions_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 340, "split it by responsibility"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno <= 60, f"{node.name} has {node.end_lineno - node.lineno} lines"
