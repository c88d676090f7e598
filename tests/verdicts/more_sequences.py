"""Second table: sound, text, time."""

from __future__ import annotations

import numpy as np

from verdicts.base import Kind, Stateful, kind, mean_of, noisy, sigmoid, smooth, softmax
from verdicts.spoiled import far, near, of, of_several


def voice(random, n, size) -> np.ndarray:
    """[n, size]: loud and silent parts."""
    time = np.arange(size)
    pitch, phase = random.uniform(0.02, 0.3, (n, 6, 1)), random.uniform(0, 6, (n, 6, 1))
    loud = np.repeat(np.maximum(random.standard_normal((n, -(-size // 100))) * 0.3, 0.03), 100, 1)[:, :size]
    return (np.sin(time * pitch + phase) * random.random((n, 6, 1))).sum(1) * loud


@kind
def waveform(random, n):
    """[T] or [1, T]"""
    found = voice(random, n, int(random.choice([1600, 6000])))
    if random.random() < 0.5:
        found = found[:, None]
    return of(found, near(random, found, None), far(found) | {"late": np.roll(found, 40, -1)})


@kind
def sources_of_a_mixture(random, n):
    """[2, T]"""
    found = np.stack([voice(random, n, 3000), 0.5 * voice(random, n, 3000)], 1)
    return of(found, near(random, found, (0, 2)), far(found, 1))


@kind
def mask_of_a_spectrogram(random, n):
    """[F, T] in 0..1"""
    found = np.clip(smooth(random, n, 65, 40) * 1.6 - 0.3, 0, 1)
    return of(found, near(random, found, None), far(found) | {"all through": found * 0 + 1})


@kind
def complex_spectrogram(random, n):
    """[F, T, 2], loud low frequencies"""
    found = random.standard_normal((n, 33, 30, 2)) * np.exp(-np.arange(33) / 8).reshape(33, 1, 1)
    return of(found, near(random, found, None), far(found) | {"real and imaginary swapped": found[..., ::-1]})


@kind
def log_mel(random, n):
    """[80, T] around -6"""
    found = -9 + 6 * smooth(random, n, 80, 50) + 0.3 * random.standard_normal((n, 80, 50))
    bad = far(found, 1) | {"constant level": found * 0 + found.mean()}
    del bad["times 0.6"]
    return of(found, near(random, found, (0, 2)), bad)


def spoken(random, n, steps, classes, blank=0.7) -> np.ndarray:
    """Logits [n, steps, classes] of a CTC head, class 0 the blank."""
    logits = random.standard_normal((n, steps, classes)) * 1.2
    best = np.where(random.random((n, steps)) < blank, 0, random.integers(1, classes, (n, steps)))
    lead = 7 + 3 * random.random((n, steps, 1))
    np.put_along_axis(logits, best[..., None], lead, -1)
    return logits


def ctc(random, logits, make=lambda found: found, order=lambda found: found) -> Kind:
    def given(found):
        return order(make(found).astype(np.float32))

    silent = logits.copy()
    silent[..., 0] += 40
    good = {what: given(found) for what, found in near(random, logits, None).items()}
    bad = {"blank always": given(silent), "flat": given(logits * 0.02), "characters in another order": given(np.roll(logits, 1, -1))}
    bad |= {"two steps late": given(np.roll(logits, 2, 1)), "negative": given(-logits)}
    if len(logits) > 1:
        bad |= {"samples mixed up": given(np.roll(logits, 1, 0)), "constant": given(mean_of(logits))}
    return of(given(logits), good, bad)


@kind
def ctc_logits(random, n):
    return ctc(random, spoken(random, n, 50, int(random.choice([28, 97, 400]))))


@kind
def ctc_log_probabilities(random, n):
    return ctc(random, spoken(random, n, 40, 32), lambda found: np.log(softmax(found)))


@kind
def ctc_with_time_last(random, n):
    """[C, T]"""
    return ctc(random, spoken(random, n, 60, 30), order=lambda found: found.transpose(0, 2, 1))


@kind
def ctc_with_an_axis_of_one(random, n):
    """[T, 1, C], as models for one sample at a time have it, seen through an outer batch."""
    return ctc(random, spoken(random, n, 45, 37), order=lambda found: found[:, :, None])


@kind
def next_token(random, n):
    """[T, V] logits of a language model; the best leads by little now and then."""
    steps, vocabulary = 16, int(random.choice([50, 3000]))
    logits = random.standard_normal((n, steps, vocabulary)) * 2
    best = random.integers(0, vocabulary, (n, steps, 1))
    np.put_along_axis(logits, best, logits.max(-1, keepdims=True) + 1 + 6 * random.random((n, steps, 1)), -1)
    bad = {"flat": logits * 0.02, "zero": logits * 0, "negative": -logits, "tokens in another order": np.roll(logits, 1, -1)}
    bad |= {"one step late": np.roll(logits, 1, 1)}
    if n > 1:
        bad |= {"samples mixed up": np.roll(logits, 1, 0), "constant": mean_of(logits)}
    return of(logits, near(random, logits, None), bad)


@kind
def names_in_a_text(random, n):
    """[T, 9] logits, mostly of 'none'."""
    logits = random.standard_normal((n, 24, 9)) * 0.8 - 1
    best = np.where(random.random((n, 24)) < 0.85, 0, random.integers(1, 9, (n, 24)))
    np.put_along_axis(logits, best[..., None], 7 + 2 * random.random((n, 24, 1)), -1)
    nothing = logits.copy()
    nothing[..., 0] += 20
    bad = {"none always": nothing, "flat": logits * 0.02, "in another order": np.roll(logits, 1, -1), "one late": np.roll(logits, 1, 1)}
    return of(logits, near(random, logits, None), bad)


@kind
def answer_in_a_text(random, n):
    """Logits of the first and the last token, two outputs [T]."""
    found = random.standard_normal((2, n, 64)) - 6
    at = random.integers(0, 64, (2, n, 1))
    np.put_along_axis(found, at, 6 + 2 * random.random((2, n, 1)), -1)
    start, end = found
    good = {}
    for what, one in near(random, start, None).items():
        good[what] = {"start_logits": one, "end_logits": near(random, end, None)[what]}
    bad = {
        "start flat": {"start_logits": start * 0.02},
        "end negative": {"end_logits": -end},
        "three late": {"end_logits": np.roll(end, 3, 1)},
    }
    if n > 1:
        bad |= {"constant": {"start_logits": mean_of(start)}, "mixed up": {"end_logits": np.roll(end, 1, 0)}}
    return of_several({"start_logits": start.astype(np.float32), "end_logits": end.astype(np.float32)}, good, bad)


@kind
def speech_or_not(random, n):
    """[1] in 0..1, for each piece of sound"""
    found = sigmoid(np.where(random.random((n, 1)) < 0.5, 4, -4) + random.standard_normal((n, 1)) * 1.5)
    if n > 1:
        found[0], found[1] = 0.02, 0.97
    return of(found, near(random, found, None), far(found) | {"never": found * 0.01, "the other way": 1 - found})


@kind
def token_ids(random, n):
    found = random.integers(0, 30000, (n, 20))
    bad = {"others": random.integers(0, 30000, found.shape), "zero": found * 0, "late": np.roll(found, 1, 1), "one more": found + 1}
    return of(found, {"same": found}, bad, dtype=np.int64)


@kind
def context_vectors(random, n):
    """[T, 96] after a LayerNorm, with one dimension far larger than the others."""
    found = random.standard_normal((n, 16, 96)) * np.exp(0.3 * random.standard_normal(96))
    found[..., 7] = found[..., 7] * 2 + 25
    return of(found, near(random, found, (0, 1)), far(found, 2))


@kind
def prices_ahead(random, n):
    """[12] steps of one quantity"""
    found = 100 + random.standard_normal((n, 12)).cumsum(1) * 3 + random.standard_normal((n, 1)) * 15
    return of(found, near(random, found, 0, whole=False), far(found) | {"30 more": found + 30})


def cell(random, size, given, gates=0.9):
    turn = np.linalg.qr(random.standard_normal((size, size)))[0] * gates
    return turn, random.standard_normal((size, given)) / np.sqrt(given), random.standard_normal((3, size)) / np.sqrt(size)


@kind
def gated_state(random, n):
    """As a GRU keeps it."""
    size = int(random.choice([16, 48]))
    turn, given, read = cell(random, size, 5)
    gate = random.standard_normal((size, 5))

    def step(keep=1.0, offset=0.0, noise=0.0, out=1.0):
        def run(x, state):
            open_ = sigmoid(x @ gate.T)
            new = (1 - open_) * keep * state + open_ * np.tanh(state @ turn.T + x @ given.T) + offset
            new = new + random.standard_normal(new.shape) * noise
            return (new @ read.T * out).astype(np.float32), new.astype(np.float32)

        return run

    bad = {"forgets": step(keep=0.0), "offset": step(offset=0.05), "noise of 12 dB": step(noise=0.12), "output times 0.6": step(out=0.6)}
    inputs = random.standard_normal((n, 5)).astype(np.float32)
    return Stateful(inputs, np.zeros(size, np.float32), step(), {"noise of 45 dB": step(noise=0.002), "exact": step()}, bad)


@kind
def average_over_time(random, n):
    """A state that forgets slowly: small offsets add up."""

    def step(keep=0.95, offset=0.0):
        def run(x, state):
            new = keep * state + 0.3 * x + offset
            return new[:, :3].astype(np.float32), new.astype(np.float32)

        return run

    inputs = random.standard_normal((n, 8)).astype(np.float32)
    bad = {"offset": step(offset=0.02), "leaks": step(keep=0.8), "never forgets": step(keep=1.0)}
    return Stateful(inputs, np.zeros(8, np.float32), step(), {"FP16": step(offset=2e-5)}, bad)


@kind
def noisy_channels_of_an_ecg(random, n):
    """[12, T], leads of unlike size"""
    found = voice(random, n * 12, 400).reshape(n, 12, 400) * np.exp(0.6 * random.standard_normal((12, 1)))
    made = of(found, near(random, found, (0, 2)), far(found, 1))
    made.harmless["noise of 33 dB"] = [{"y": row} for row in noisy(random, found, 33, (0, 2))]
    return made
