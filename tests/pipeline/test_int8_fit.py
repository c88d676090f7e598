"""pipeline/int8_fit.py: equalized channels and fitted weights are taken where they pay, and INT8 is never much worse than without them."""

from types import SimpleNamespace

import numpy as np
import pytest
from random_networks import MEASURED, prepared_by, random_network, sqnr, write

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.pipeline import int8_fit
from onnx2trt.pipeline.int8_fit import Ways
from onnx2trt.rewrite.number_formats import INT8

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

NOTHING = 60.0  # dB: FP16 makes as much noise


@pytest.fixture
def ways(monkeypatch):
    """Ways whose parts are made up: each is named by what was done, and comes as near to the model as `db` says."""

    def made(db, may_fit=True, groups=True, cache=None):
        job = SimpleNamespace(plan=SimpleNamespace(calibration=SimpleNamespace(cache=None)), number_format=INT8)
        found = Ways(job, "graph", (), (), SimpleNamespace(cache=cache), {}, SimpleNamespace(console=Console(), stage=stage))
        found.__dict__["split"] = SimpleNamespace(may_fit=may_fit)
        found.__dict__["_plain_db"] = db["plain"]
        monkeypatch.setattr(Ways, "_made", lambda self, equalization, fit: "+".join(equalization.done + ["fitted"] * fit) or "plain")
        monkeypatch.setattr(int8_fit, "Equalization", lambda graph: SimpleNamespace(empty=True, done=[]))
        monkeypatch.setattr(int8_fit, "equalize", lambda *_: SimpleNamespace(empty=not groups, done=["equalized"] * groups))
        monkeypatch.setattr(int8_fit, "signal_to_noise", lambda job, made, run, way: db[made])
        return found

    return made


class Console:
    def __init__(self):
        self.said = []

    def info(self, text):
        self.said.append(text)


class stage:
    def __init__(self, *_): ...

    def __enter__(self): ...

    def __exit__(self, *_): ...


def every(level):
    return {"y": [level] * 8}


@pytest.mark.parametrize(
    "both, fitted, taken, said",
    [
        (30.0, 20.0, "equalized+fitted", []),
        (20.0, 30.0, "fitted", ["channels are not equalized"]),
        (10.0, 10.0, "plain", ["channels", "weights"]),
    ],
)
def test_the_simpler_way_is_taken_where_the_other_may_be_worse(ways, both, fitted, taken, said):
    found = ways({"plain": every(25.0), "equalized+fitted": every(both), "fitted": every(fitted)})
    assert found.best(SimpleNamespace(equalize=True, fit=True)) == taken
    assert len(found.run.console.said) == len(said) and all(part in line for part, line in zip(said, found.run.console.said))


def test_an_effort_asks_for_no_more_than_it_names(ways):
    levels = {name: every(30.0) for name in ("plain", "equalized", "fitted", "equalized+fitted")}
    assert ways(levels).best(SimpleNamespace(equalize=False, fit=False)) == "plain"
    assert ways(levels).best(SimpleNamespace(equalize=False, fit=True)) == "fitted"
    assert ways(levels, may_fit=False).best(SimpleNamespace(equalize=True, fit=True)) == "equalized", "no data to fit to"
    assert ways(levels, groups=False).best(SimpleNamespace(equalize=True, fit=True)) == "fitted", "nothing to equalize"
    assert ways(levels, cache="c").best(SimpleNamespace(equalize=True, fit=True)) == "fitted", "its scales are those of the graph as it is"


@pytest.mark.parametrize("equalizes, calibrated", [(False, 1), (True, 2)])
def test_the_graph_as_it_is_is_calibrated_once(tmp_path, monkeypatch, equalizes, calibrated):
    """Fitted weights alone are held against the scales that they were fitted with."""
    monkeypatch.chdir(tmp_path)
    network = random_network(3)
    write(network, tmp_path)
    calls, calibrate = [], int8_fit.calibrate
    monkeypatch.setattr(int8_fit, "calibrate", lambda *args: calls.append(args[4:]) or calibrate(*args))
    if not equalizes:
        monkeypatch.setattr(int8_fit, "equalize", lambda job, graph, *_: int8_fit.Equalization(graph))
    prepared_by("default")
    assert len(calls) == calibrated, calls


# ---- the property


def gains(seed, folder, monkeypatch, effort):
    """By how much the effort is nearer to the model than `fast`, in dB, for each output, on samples that nothing has seen."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    network = random_network(seed)
    write(network, folder)
    feeds = [network.feed(1000 + number) for number in range(MEASURED)]
    session = Session.from_graph(Graph.from_model(network.model))
    expected = [session.run(feed) for feed in feeds]
    fast, other = (sqnr(expected, prepared_by(effort), feeds) for effort in ("fast", effort))
    return [min(other[name], NOTHING) - min(fast[name], NOTHING) for name in fast]


@pytest.mark.slow
@pytest.mark.parametrize("effort, seeds", [("default", range(700, 708)), ("best", range(740, 750))])
def test_int8_of_random_networks_is_not_worse_than_its_simplest_form(tmp_path, monkeypatch, effort, seeds):
    """On samples that nothing has seen, no network loses more than the limit, however few samples it was made from."""
    worst, all_gains = [], []
    for seed in seeds:
        found = gains(seed, tmp_path / str(seed), monkeypatch, effort)
        worst.append(min(found))
        all_gains += found
    assert min(worst) >= -1, dict(zip(seeds, np.round(worst, 1)))
    assert np.mean(all_gains) > 0.5, "there is something to gain"
