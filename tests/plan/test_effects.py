"""plan/effects.py: what each flag does with each library."""

import pytest
from helpers import LIBRARIES, flag_actions, parse, refused, typing

from onnx2trt.base.errors import ExitCode
from onnx2trt.plan.effects import COLUMNS, TABLE, Effect, column, effects_of, typed_flags

APPLIED, TRANSLATED, NO_EFFECT, REFUSED = Effect.APPLIED, Effect.TRANSLATED, Effect.NO_EFFECT, Effect.REFUSED

EXPECTED = {  # flag -> effect with TensorRT 8.6 to 10, TensorRT 11, TensorRT-RTX
    "--gpu-arch": (REFUSED, REFUSED, APPLIED),
    "--layer-precisions": (APPLIED, TRANSLATED, TRANSLATED),
    "--disable-strict-types": (APPLIED, TRANSLATED, TRANSLATED),
    "--precision-constraints": (APPLIED, TRANSLATED, TRANSLATED),
    "--strongly-typed": (APPLIED, NO_EFFECT, NO_EFFECT),
    "--quantization": (APPLIED, APPLIED, APPLIED),
    "--metric": (APPLIED, APPLIED, APPLIED),
    "--min-int8-share": (APPLIED, APPLIED, APPLIED),
    "--io-types": (APPLIED, TRANSLATED, TRANSLATED),
    "--tactic-sources": (APPLIED, APPLIED, NO_EFFECT),
    "--disable-tactic-sources": (APPLIED, APPLIED, NO_EFFECT),
    "--timing-cache": (APPLIED, APPLIED, NO_EFFECT),
    "--dla-core": (APPLIED, REFUSED, REFUSED),
    "--plugins": (APPLIED, APPLIED, REFUSED),
    "--version-compatible": (APPLIED, APPLIED, REFUSED),
    "--hardware-compatibility-level": (APPLIED, APPLIED, REFUSED),
    "--triton-repository": (APPLIED, APPLIED, REFUSED),
}
ACTIONS = {max(action.option_strings, key=len): action for action in flag_actions()}
CELLS = [(flag, col) for flag in EXPECTED for col in COLUMNS]


def effects(col: str, *flags: str) -> dict[str, Effect]:
    library = LIBRARIES[col]
    return {flag: cell.effect for flag, cell in effects_of(parse(*flags), library.backend, library.weak_typing)}


# ---- the table


def test_every_row_of_the_table_is_expected():
    """A new row is written down here, too, from what the library is known to do."""
    assert EXPECTED.keys() == TABLE.keys()


def test_every_row_names_a_flag_of_the_parser_and_fills_every_column():
    for flag, row in TABLE.items():
        assert flag in ACTIONS
        assert set(row) == set(COLUMNS)
        assert all(cell.note for cell in row.values())


@pytest.mark.parametrize(("flag", "col"), CELLS)
def test_a_typed_flag_has_its_effect(flag, col):
    effect = EXPECTED[flag][COLUMNS.index(col)]
    words = typing(ACTIONS[flag])
    if effect is REFUSED:
        with refused(ExitCode.MACHINE, flag, TABLE[flag][col].note):
            effects(col, *words)
    elif effect is APPLIED:
        assert effects(col, *words) == {}  # nothing to say
    else:
        assert effects(col, *words) == {flag: effect}


@pytest.mark.parametrize("col", COLUMNS)
def test_nothing_is_said_of_flags_that_were_not_typed(col):
    assert effects(col) == {}


def test_the_refusal_of_gpu_arch_says_what_it_goes_with():
    with refused(ExitCode.MACHINE, "--backend tensorrt-rtx"):
        effects("weak", "--gpu-arch", "89")


def test_every_refused_flag_is_named(monkeypatch):
    monkeypatch.setitem(TABLE, "--tf32", {"weak": TABLE["--gpu-arch"]["weak"]})
    with refused(ExitCode.MACHINE, "--gpu-arch:", "--tf32:"):
        effects("weak", "--gpu-arch", "89", "--tf32")


def test_several_effects_are_listed():
    found = effects("rtx", "--disable-tactic-sources", "--disable-strict-types", "--gpu-arch", "89")
    assert found == {"--disable-tactic-sources": NO_EFFECT, "--disable-strict-types": TRANSLATED}


@pytest.mark.parametrize("col", COLUMNS)
def test_column_of_a_library(col):
    assert column(LIBRARIES[col].backend, LIBRARIES[col].weak_typing) == col


# ---- which flags were typed


@pytest.mark.parametrize("flag", ACTIONS)
def test_typed_flags_lists_the_long_name_of_a_flag_that_differs_from_its_default(flag):
    assert typed_flags(parse()) == ["--onnx"]
    assert sorted(typed_flags(parse(*typing(ACTIONS[flag])))) == sorted(["--onnx", flag])
