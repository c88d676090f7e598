"""validate.py by the verdict table: ONNX pairs of every kind of output, harmless and harmful (tests/verdicts)."""

import pytest
from verdicts.nets import NETS
from verdicts.onnx_pairs import lookable, verdict, verdict_of_a_process, write


@pytest.mark.slow
@pytest.mark.parametrize("name", [*lookable("first"), *NETS])
def test_harmful_candidates_end_with_7_and_harmless_ones_with_0(tmp_path, name):
    found = {path.stem: (verdict(path).code, 0 if harmless else 7) for harmless, path in write(tmp_path, name, 0, 20)}
    assert found and all(code == right for code, right in found.values()), found


@pytest.mark.parametrize("name", ["net_of_a_detector"])
def test_the_command_says_the_same(tmp_path, name):
    pairs = write(tmp_path, name, 0, 6)
    for harmless, path in [next(pair for pair in pairs if pair[0]), next(pair for pair in pairs if not pair[0])]:
        found = verdict_of_a_process(path)
        assert found.code == verdict(path).code == (0 if harmless else 7) and (found.rows or not harmless)
