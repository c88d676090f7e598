"""Models with a state that goes round."""

from __future__ import annotations

import numpy as np

from verdicts.base import Stateful, kind, rounded


@kind
def recurrent_state(random, n):
    size = 24
    turn = np.linalg.qr(random.standard_normal((size, size)))[0] * 0.8
    given, read = random.standard_normal((size, 6)), random.standard_normal((4, size)) / np.sqrt(size)

    def step(turn=turn, given=given, loss=0.0, bias=0.0, noise=0.0):
        def run(x, state):
            new = np.tanh(state @ turn.T + x @ given.T * 0.5) * (1 - loss) + bias
            new = new + random.standard_normal(new.shape) * noise
            return (new @ read.T).astype(np.float32), new.astype(np.float32)

        return run

    close = {"INT8 weights": step(rounded(turn, 1), rounded(given, 1)), "noise of 40 dB in the state": step(noise=0.005)}
    bad = {
        "state lost": step(turn * 0),
        "drifting by 5 % a step": step(bias=0.05),
        "noise of 10 dB": step(noise=0.2),
        "half": step(loss=0.5),
    }
    return Stateful(random.standard_normal((n, 6)).astype(np.float32), np.zeros(size, np.float32), step(), close, bad)


@kind
def slowly_drifting_state(random, n):
    """Single steps differ by 30 dB, and a hundred of them by the whole."""
    size = 16

    def step(keep=0.97, bias=0.0):
        def run(x, state):
            new = keep * state + (1 - keep) * 4 * x + bias
            return np.tanh(new).astype(np.float32)[:, :4], new.astype(np.float32)

        return run

    return Stateful(
        random.standard_normal((n, size)).astype(np.float32),
        np.zeros(size, np.float32),
        step(),
        {"FP16": step(0.97, 1e-5)},
        {"drift": step(0.97, 0.012)},
    )
