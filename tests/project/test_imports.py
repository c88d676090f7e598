"""The map of the house: which room may import which, no circle anywhere, and what needs nothing but the standard library."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from command import ROOT

PACKAGE = ROOT / "onnx2trt"
DOORS = ("onnx2trt.py", "calibration.py", "preprocess.py", "validate.py")

# room (or file of the package) -> the rooms that it may import besides itself; all arrows run downwards
MAY_IMPORT = {
    "__init__": {"api", "base", "report"},
    "__main__": {"cli"},
    "fleet": {"cli", "pipeline", "conversion", "process", "report", "plan", "base"},
    "cli": {"supervised", "worker", "plan", "process", "report", "base"},
    "api": {"supervised", "plan", "report", "base"},
    "supervised": {"process", "report", "base"},
    "worker": {"pipeline", "conversion", "process", "report", "base"},
    "pipeline": {"stages", "conversion", "quant", "rewrite", "model", "trt", "data", "plan", "base", "report"},
    "stages": {"conversion", "report", "compare", "quant", "rewrite", "model", "trt", "data", "plan", "base"},
    "conversion": {"report", "compare", "quant", "rewrite", "model", "trt", "data", "plan", "process", "base"},
    "report": {"compare", "plan", "base"},
    "compare": {"data", "base"},
    "quant": {"rewrite", "model", "base"},
    "rewrite": {"model", "base"},
    "model": {"base"},
    "trt": {"plan", "base"},
    "data": {"plan", "base"},
    "plan": {"base"},
    "process": {"base"},
    "base": set(),
}

# files of one room that may not import each other; those of the second are no stages, but what several of them are made of
STAGES_APART = ("stages", "stages/int8")

# third-party module -> the only files of the package that may import it
OWNERS = {
    "tensorrt": {"trt/library.py"},
    "tensorrt_rtx": {"trt/library.py"},
    "onnxruntime": {"model/on_gpu.py"},
    "cv2": {"base/opencv.py"},
    "rich": {"report/console.py", "report/live_lines.py", "report/table.py", "fleet/display.py"},
    "ray": {"fleet/cluster.py"},
    "yaml": {"fleet/plan_file.py"},
    "jinja2": {"report/html.py"},
    "matplotlib": {"report/plots.py"},
    "onnx": {"model/", "rewrite/", "quant/", "conversion/job.py"},
    "pycuda": {"trt/memory.py"},
    "cuda": {"trt/memory.py"},
}


def files():
    return sorted(PACKAGE.rglob("*.py"))


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room(module: str) -> str:
    """'onnx2trt.quant.equalize.rules' -> 'quant'; of the package itself '__init__'."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in files()}


def imports_of(path: Path):
    """(module, at the top of the file) of every import; of `from package import module` the module."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in MODULES else node.module), id(node) in top


@pytest.mark.parametrize("path", files(), ids=place)
def test_every_arrow_runs_downwards(path):
    own = room(module_of(path))
    for module, _ in imports_of(path):
        package = module.split(".")[0]
        if package == "onnx2trt":
            assert room(module) in MAY_IMPORT[own] | {own}, f"{place(path)} imports {module}"
        elif package in OWNERS:
            assert any(place(path).startswith(owner) for owner in OWNERS[package]), f"{place(path)} imports {module}"


def test_no_circle_between_files_nor_between_rooms():
    ours = {module_of(path): {module for module, _ in imports_of(path) if module in MODULES} for path in files()}
    tuple(TopologicalSorter(ours).static_order())  # raises CycleError
    tuple(TopologicalSorter(MAY_IMPORT).static_order())


def test_the_map_has_no_room_too_many():
    assert set(MAY_IMPORT) == {room(module) for module in MODULES}


@pytest.mark.parametrize("path", files(), ids=place)
def test_no_stage_imports_another(path):
    folder = path.parent.relative_to(PACKAGE).as_posix()
    if folder in STAGES_APART and path.name != "__init__.py":
        siblings = {f"onnx2trt.{folder.replace('/', '.')}.{other.stem}" for other in path.parent.glob("*.py")}
        assert not siblings & {module for module, _ in imports_of(path)}


def test_the_doors_are_those_that_the_user_asked_for():
    assert {path.name for path in ROOT.glob("*.py")} == set(DOORS)


# what the supervising parent loads: nothing but the standard library
PARENT = ("cli", "__main__", "__init__", "api", "supervised")


def loaded_by_the_parent() -> set[str]:
    """Modules of ours that are loaded, at the top of a file, by those of PARENT and of what they load in turn."""
    found, todo = set(), [module for module in MODULES if room(module) in PARENT]
    while todo:
        module = todo.pop()
        if module in found:
            continue
        found.add(module)
        path = PACKAGE.parent / (module.replace(".", "/") + ".py")
        path = path if path.exists() else PACKAGE.parent / module.replace(".", "/") / "__init__.py"
        todo += [name for name, at_top in imports_of(path) if name in MODULES and (at_top or room(module) in PARENT) and name not in WORK]
    return found


WORK = {"onnx2trt.worker"}  # what only the child loads


def test_the_parent_needs_the_standard_library_alone():
    for module in loaded_by_the_parent():
        path = PACKAGE.parent / (module.replace(".", "/") + ".py")
        path = path if path.exists() else PACKAGE.parent / module.replace(".", "/") / "__init__.py"
        for name, at_top in imports_of(path):
            package = name.split(".")[0]
            assert not at_top or package in sys.stdlib_module_names or package == "onnx2trt", f"{module} imports {name} at its top"


ANSWERS = [(door, ["--help"], 0, "stdout") for door in DOORS] + [(door, [], 2, "stderr") for door in DOORS]
ANSWERS += [
    ("onnx2trt.py", ["--onnx", "m.onnx", "--std", "0"], 2, "stderr"),
    ("preprocess.py", ["i.png", "--onnx", "m.onnx", "-o", "x.png"], 2, "stderr"),
    ("validate.py", ["m.onnx", "--onnx", "m.onnx"], 2, "stderr"),
    ("calibration.py", ["--onnx", "m", "--calibration-dir", "d", "--calibration-cache", "m"], 2, "stderr"),
]


@pytest.mark.parametrize("door, arguments, code, stream", ANSWERS)
def test_help_and_wrong_flags_need_no_package(door, arguments, code, stream):
    done = subprocess.run([sys.executable, "-S", "-E", str(ROOT / door), *arguments], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert f"usage: {door}" in getattr(done, stream)
    assert code == 0 or f"{door}: error: " in done.stderr


HEAVY = {"numpy", "onnx", "onnxruntime", "cv2", "tensorrt", "tensorrt_rtx", "rich", "jinja2", "matplotlib"}


def python(code: str) -> str:
    """The last line that a program prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("modules", ["onnx2trt, onnx2trt.cli", "calibration", "preprocess", "validate"])
def test_importing_the_package_or_a_door_loads_nothing_heavy(modules):
    assert python(f"import sys, {modules}; print(sorted({{name.split('.')[0] for name in sys.modules}} & {HEAVY}))") == "[]"


@pytest.mark.parametrize(
    "door, names",
    [
        ("calibration", "Histogram, Collector, make_calibrator, scale_of, METHODS"),
        ("preprocess", "load_image, Preprocessing, image_tensor, displayed, decode"),
        ("validate", "Comparison, Study, failure"),
    ],
)
def test_other_programs_import_the_tools_from_a_door(door, names):
    assert python(f"from {door} import {names}; print(callable({names.split(', ')[0]}))") == "True"
    assert python(f"import {door}\nfor name in {door}.FROM: getattr({door}, name)\nprint('all there')") == "all there"
    assert python(f"import {door}; print(hasattr({door}, 'nothing'))") == "False"


@pytest.mark.parametrize("words", [[], ["calibrate"], ["preprocess"], ["validate"]], ids=str)
def test_help_loads_nothing_that_only_a_conversion_needs(words):
    """Each of these costs more than argparse itself."""
    slow = {"ctypes", "dataclasses", "hashlib", "json", "shutil", "subprocess", "onnx2trt.plan.plan", "onnx2trt.process.supervision"}
    code = (
        "import sys\nfrom onnx2trt import cli\n"
        f"try: cli.main([*{words}, '--help'])\nexcept SystemExit: print('loaded', sorted({slow} & set(sys.modules)))"
    )
    assert python(code) == "loaded []"


MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 340, 60, 6


@pytest.mark.parametrize("path", [*files(), *(ROOT / door for door in DOORS)], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_and_functions_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES, "split it by responsibility"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            arguments = node.args
            count = len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs)
            count -= any(argument.arg in ("self", "cls") for argument in arguments.args[:1])
            assert node.end_lineno - node.lineno <= MOST_FUNCTION_LINES, f"{node.name} has {node.end_lineno - node.lineno} lines"
            assert count <= MOST_PARAMETERS, f"{node.name} has {count} parameters"
