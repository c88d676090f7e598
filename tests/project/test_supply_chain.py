"""What is installed beside us is bounded, known and checked: bounds, the locked versions of CI, the bill of materials."""

import json
import re
import runpy

import pytest
from command import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

FILES = sorted(path.name for path in ROOT.glob("requirements*.txt"))
LOCKED = (ROOT / ".ci" / "locked.txt").read_text()


def requirements(name: str) -> list[Requirement]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-r ")]


def locked() -> dict[str, list[Requirement]]:
    """Name -> what is locked, one for each range of Python versions."""
    found: dict[str, list[Requirement]] = {}
    for entry in re.sub(r"^#.*\n", "", LOCKED, flags=re.MULTILINE).replace("\\\n", " ").splitlines():
        requirement, *hashes = re.split(r"\s+--hash=", entry)
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", each.strip()) for each in hashes), entry
        parsed = Requirement(requirement.strip())
        found.setdefault(canonicalize_name(parsed.name), []).append(parsed)
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_dependency_has_a_lowest_and_a_highest_version(name):
    for requirement in requirements(name):
        assert sorted(part.operator for part in requirement.specifier) == ["<", ">="], requirement


def test_every_locked_version_is_one_with_hashes_and_no_place_to_get_it_from():
    for several in locked().values():
        for requirement in several:
            assert [part.operator for part in requirement.specifier] == ["=="], requirement
            assert requirement.url is None
    assert "://" not in LOCKED and "--index" not in LOCKED and "--find-links" not in LOCKED


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-fleet.txt", "requirements-dev.txt"])
def test_what_is_locked_is_what_the_requirements_allow(name):
    """`.ci/locked.txt` says at its top how it is made again."""
    known = locked()
    for requirement in requirements(name):
        entries = known[canonicalize_name(requirement.name)]
        for entry in entries:
            (version,) = (part.version for part in entry.specifier)
            assert requirement.specifier.contains(Version(version)), f"{entry} is not {requirement}"


def test_the_bill_of_materials_is_that_of_pyproject():
    """Else: python .ci/sbom.py > sbom.cdx.json"""
    bill = runpy.run_path(str(ROOT / ".ci" / "sbom.py"))["bill"]()
    assert json.loads((ROOT / "sbom.cdx.json").read_text()) == bill
    refs = [component["bom-ref"] for component in bill["components"]]
    assert len(refs) == len(set(refs)) and {"pkg:pypi/numpy", "pkg:pypi/onnx", "pkg:pypi/tensorrt-rtx", "pkg:pypi/ray"} <= set(refs)
    assert {entry["ref"] for entry in bill["dependencies"]} == {*refs, bill["metadata"]["component"]["bom-ref"]}
    for requirement in requirements("requirements.txt"):
        (component,) = [each for each in bill["components"] if each["name"] == requirement.name]
        told = {each["name"]: each["value"] for each in component["properties"]}
        assert Requirement(requirement.name + told["onnx2trt:versions"]).specifier == requirement.specifier


def test_security_md_names_tests_that_are_there():
    text = (ROOT / "SECURITY.md").read_text()
    named = set(re.findall(r"`((?:tests|benchmarks)/[\w/.]+\.py)(?:::\w+)?`", text)) | set(re.findall(r"`(\.ci/[\w.]+)`", text))
    assert len(named) > 10
    for name in named:
        assert (ROOT / name).exists(), name
    promises = re.split(r"\n- ", text.split("## Promised")[1].split("\n## ")[0])[1:]
    for promise in promises:
        assert re.search(r"`(?:tests|benchmarks)/", promise), f"no test is named: {promise.splitlines()[0]}"
