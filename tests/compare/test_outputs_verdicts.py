"""compare/outputs.py by the verdict tables (tests/verdicts): no harmful candidate passes, and no harmless one fails."""

import pytest
from verdicts.base import KINDS
from verdicts.table import TABLES, judged, kinds_of


@pytest.mark.parametrize("name", [*kinds_of("first"), *kinds_of("third")])
def test_harmful_and_harmless_candidates_are_told_apart(name):
    line = judged(name, seeds=[0], counts=[5])
    assert line.good and line.bad and not line.wrong, "\n".join(line.wrong)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_they_are_with_few_and_with_more_samples(name):
    line = judged(name, seeds=[1], counts=[3, 20])
    assert not line.wrong, "\n".join(line.wrong)


@pytest.mark.slow
@pytest.mark.parametrize("name", kinds_of("first"))
def test_they_are_in_batches(name):
    line = judged(name, seeds=[2], counts=[22], batch=4)
    assert not line.wrong, "\n".join(line.wrong)


def test_the_tables_hold_enough_kinds():
    assert sum(len(kinds_of(table)) for table in TABLES) == len(KINDS) > 150
