"""compare/outputs.py by the verdict table (tests/verdicts): no harmful candidate passes, and no harmless one fails."""

import pytest
from verdicts.table import KINDS, judged


@pytest.mark.parametrize("name", KINDS)
def test_harmful_and_harmless_candidates_are_told_apart(name):
    line = judged(name, seeds=[0], counts=[3, 20])
    assert line.good and line.bad and not line.wrong, "\n".join(line.wrong)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_they_are_with_other_numbers_and_with_batches(name):
    for counts, batch in (([3, 20], 1), ([7, 50], 4), ([200], 8)):
        line = judged(name, seeds=range(1, 4), counts=counts, batch=batch)
        assert not line.wrong, "\n".join(line.wrong)


def test_the_table_holds_enough_kinds():
    assert len(KINDS) >= 50
