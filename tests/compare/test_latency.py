"""compare/latency.py: engines are timed in turn, each for about as long."""

from onnx2trt.compare.latency import measure_in_turn


def test_engines_are_timed_in_turn():
    calls = []

    def timer(name, milliseconds):
        return lambda runs: calls.append(name) or [milliseconds] * runs

    found = measure_in_turn({"a": timer("a", 10.0), "b": timer("b", 20.0)})
    assert found["a"]["p50_ms"] == 10.0 and found["b"]["p99_ms"] == 20.0
    assert calls == ["a", "a", "b", "b", *["a", "b"] * 5], "a first look and a warm-up each, then rounds"
    assert found["a"]["runs"] == 100 and found["b"]["runs"] == 50, "about a second each"
