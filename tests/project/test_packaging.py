"""pyproject.toml and the requirements files promise the same, and the wheel holds the package and nothing else."""

import subprocess
import sys
import zipfile
from email.parser import Parser

import pytest
from command import ROOT
from packaging.requirements import Requirement

import onnx2trt

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
BASE = None  # stands for the dependencies that every installation has

# requirements file -> what it holds of pyproject.toml; the command of a clone knows --report, an installed one where it is asked for
HOLDS = {
    "requirements.txt": {BASE, "report"},
    "requirements-gpu.txt": {BASE, "report", "gpu"},
    "requirements-pycuda.txt": {"pycuda"},
    "requirements-fleet.txt": {"fleet"},
    "requirements-dev.txt": {BASE, "report", "fleet", "dev"},
}


def of_file(name: str) -> set[Requirement]:
    """The requirements of a file, those of the files that it names included."""
    found = set()
    for line in (ROOT / name).read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("-r "):
            found |= of_file(line.removeprefix("-r "))
        elif line:
            found.add(Requirement(line))
    return found


def of_project(extra: str | None) -> set[Requirement]:
    """The requirements of an extra, those of the extras that it names included; of BASE those without any."""
    found = set()
    for requirement in map(Requirement, EXTRAS[extra] if extra else PROJECT["dependencies"]):
        if requirement.name == PROJECT["name"]:
            found.update(*(of_project(name) for name in requirement.extras))
        else:
            found.add(requirement)
    return found


@pytest.mark.parametrize("name", HOLDS)
def test_a_requirements_file_is_made_of_dependencies_and_extras(name):
    assert of_file(name) == set().union(*(of_project(extra) for extra in HOLDS[name]))


def test_no_requirements_file_and_no_extra_is_left_out():
    assert {path.name for path in ROOT.glob("requirements*.txt")} == set(HOLDS)
    assert set(EXTRAS) | {BASE} == set().union(*HOLDS.values())


@pytest.mark.parametrize("requirement", sorted(map(str, of_file("requirements.txt"))))
def test_a_dependency_has_a_lowest_version_that_ci_can_install(requirement):
    """.ci/run writes ==X for >=X, and converts once with these versions."""
    assert sorted(part.operator for part in Requirement(requirement).specifier) == ["<", ">="]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(pip, check=True, timeout=300, cwd=folder)
    (path,) = folder.iterdir()
    with zipfile.ZipFile(path) as opened:
        yield opened


@pytest.mark.slow
def test_the_wheel_has_one_top_level_name_and_all_files_of_the_package(wheel):
    tree = {path.relative_to(ROOT).as_posix() for path in (ROOT / "onnx2trt").rglob("*") if path.is_file()}
    wanted = {name for name in tree if "__pycache__" not in name}
    assert {"onnx2trt/py.typed", "onnx2trt/report/page.css", "onnx2trt/report/result.schema.json"} <= wanted
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == wanted


@pytest.mark.slow
def test_the_wheel_says_what_it_is(wheel):
    information = f"onnx2trt-{onnx2trt.__version__}.dist-info"
    assert {name.split("/")[0] for name in wheel.namelist()} == {"onnx2trt", information}
    metadata = Parser().parsestr(wheel.read(f"{information}/METADATA").decode())
    assert metadata["License-Expression"] == "Apache-2.0" and metadata["Requires-Python"] == ">=3.10"
    assert wheel.read(f"{information}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert wheel.read(f"{information}/sboms/sbom.cdx.json") == (ROOT / "sbom.cdx.json").read_bytes()
    assert "onnx2trt = onnx2trt.__main__:main" in wheel.read(f"{information}/entry_points.txt").decode()
