"""The software bill of materials of the wheel, out of pyproject.toml: python .ci/sbom.py > sbom.cdx.json

CycloneDX 1.6. The wheel brings nobody else's code: what it needs is named with the versions that it accepts, as pip chooses among them.
tests/project/test_supply_chain.py fails where the file is not what this writes.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
TOOL_EXTRAS = ("dev",)  # what nobody needs who uses the wheel
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[.*?\])?\s*([^;]*?)\s*(?:;\s*(.*))?$")  # name, versions, marker


def bill() -> dict:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = re.search(r'^__version__ = "(.*)"', (ROOT / "onnx2trt" / "__init__.py").read_text(), re.MULTILINE)[1]
    own = f"pkg:pypi/{project['name']}@{version}"
    needed = [_component(requirement, "") for requirement in project["dependencies"]]
    for extra, requirements in project["optional-dependencies"].items():
        if extra not in TOOL_EXTRAS:
            needed += [_component(requirement, extra) for requirement in requirements]
    components = sorted(needed, key=lambda component: component["bom-ref"])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, own + json.dumps(components))}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": project["name"],
                "version": version,
                "description": project["description"],
                "licenses": [{"license": {"id": project["license"]}}],
                "purl": own,
            }
        },
        "components": components,
        "dependencies": [
            {"ref": own, "dependsOn": [component["bom-ref"] for component in components]},
            *({"ref": component["bom-ref"]} for component in components),
        ],
    }


def _component(requirement: str, extra: str) -> dict:
    """What one requirement says; of an extra it is optional."""
    name, versions, marker = REQUIREMENT.match(requirement).groups()
    told = {"versions": versions, "marker": marker, "extra": extra}
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name.lower()}",
        "name": name,
        "scope": "optional" if extra else "required",
        "purl": f"pkg:pypi/{name.lower()}",
        "properties": [{"name": f"onnx2trt:{key}", "value": value} for key, value in told.items() if value],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(bill(), indent=2) + "\n")
