"""The statistics of a proof by experiment: paired trials, a permutation test, a verdict. Pure."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

ALPHA = 0.02
"""Probability of a difference as large as the one that was seen, if the suspect had no effect, below which an effect is
proven: with 8 trials the smallest possible one is 1/256."""
EFFECT = 0.25
"""The victim must lose at least this part of its waiting while the suspect is stopped. If it is shown to lose less, the
suspicion is refuted."""
EXACT_MAX = 14
"""Trials up to which all changes of sign are tried, 16,384; with more, RANDOM random ones."""
RANDOM = 20_000


class Trial(NamedTuple):
    """How the victim fared in two short stretches: while the suspect ran and while it was stopped. Higher is worse."""

    running: float
    stopped: float


class Finding(NamedTuple):
    """The verdict, the part of the waiting that ended, the probabilities by which proof and refutation were decided."""

    verdict: str
    effect: float | None
    p_value: float
    p_refute: float


def sign_test(differences: Sequence[float], chosen: Callable[[], random.Random] = random.Random) -> float:
    """The probability of a mean as high as that of `differences` if each could as well have had the other sign."""
    observed = sum(differences) - 1e-12
    if len(differences) <= EXACT_MAX:
        signs = itertools.product((1, -1), repeat=len(differences))
        hits = sum(sum(s * d for s, d in zip(each, differences, strict=True)) >= observed for each in signs)
        return float(hits / 2 ** len(differences))
    rng = chosen()
    hits = sum(sum(d if rng.random() < 0.5 else -d for d in differences) >= observed for _ in range(RANDOM))
    return (hits + 1) / (RANDOM + 1)


def find(trials: Sequence[Trial], least: float) -> Finding:
    """The verdict of trials. `least`: the mean while the suspect runs below which the victim does not wait at all."""
    mean = sum(each.running for each in trials) / len(trials) if trials else 0.0
    if not trials or mean < least:
        return Finding("not_proven", None, 1.0, 1.0)
    differences = [each.running - each.stopped for each in trials]
    effect = sum(differences) / len(differences) / mean
    p_value = sign_test(differences)
    p_refute = sign_test([EFFECT * each.running - d for each, d in zip(trials, differences, strict=True)])
    if p_value <= ALPHA and effect >= EFFECT:
        verdict = "proven"
    elif p_refute <= ALPHA and effect < EFFECT:
        verdict = "refuted"
    else:
        verdict = "not_proven"
    return Finding(verdict, effect, p_value, p_refute)
