"""Every public number against two independent references, in 100 cases or more.

1,000 cases by `make -C tools slow`. The first reference is the definition, in loops of Python with
exact sums or in mpmath with 30 digits; the second a library or another formula. Both to a relative
1e-10 in float64. A new public number without a row in `METRICS` fails the suite.
"""

import functools
import inspect
import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, get_args

import mpmath
import numpy as np
import pytest
import torch
from crps_reference import scoringrules
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import integrate, optimize, special, stats
from sklearn import metrics, neighbors

import mcbn
from mcbn.evaluation import calibration, detection, formulas, glossary, scores, significance
from mcbn.evaluation import error_detection as errors_of_mcbn
from mcbn.evaluation.calibrated import calibrated_nll, first_half
from mcbn.evaluation.equivalents import ensemble_equivalents
from mcbn.evaluation.error_detection import error_detection
from mcbn.evaluation.evaluate import ScoredRows
from mcbn.evaluation.finite_draws import extrapolated_nll
from mcbn.evaluation.reliability import Reliability
from mcbn.evaluation.significance import welch
from mcbn.predictive import categorical, mixture
from mcbn.study import results, slopes
from mcbn.uncertainty import neighbors as neighbors_of_mcbn
from mcbn.uncertainty.neighbors import kth_distance
from mcbn.uncertainty.predictive_scores import PREDICTIVE_SCORES

mp = mpmath.mp.clone()
mp.dps = 30
TOLERANCE = 1e-10


# Cases.


def grid(low, high):
    """Numbers of which many are equal, and some that are not."""
    some = st.sampled_from(np.linspace(low, high, 5).tolist())
    return st.one_of(some, st.floats(low, high, allow_subnormal=False))


def arrays(shape, low=-3.0, high=3.0):
    return hnp.arrays(np.float64, shape, elements=grid(low, high))


@st.composite
def classes(draw):
    """Logits of up to 8 examples and 5 classes, and labels."""
    shape = draw(st.tuples(st.integers(1, 8), st.integers(2, 5)))
    logits = draw(arrays(shape, -9.0, 9.0))
    return logits, draw(hnp.arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1)))


@st.composite
def drawn_logits(draw):
    """Up to 4 draws of logits."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(2, 4)))
    return (draw(arrays(shape, -6.0, 6.0)),)


@st.composite
def flags(draw, low=0.0, high=1.0, least=1, most=12):
    """Numbers and whether each is one of the positive ones."""
    count = draw(st.integers(least, most))
    return draw(arrays(count, low, high)), draw(hnp.arrays(np.bool_, count))


@st.composite
def both_kinds(draw):
    values, positive = draw(flags(-2.0, 2.0, least=2))
    positive = positive.copy()
    positive[:2] = False, True
    return values, positive


@st.composite
def losses(draw):
    """Few, so that all orders of ties can be gone through."""
    count = draw(st.integers(1, 5))
    return draw(arrays(count)), draw(arrays(count, 0.0, 1.0))


@st.composite
def mixtures(draw, least=0.01):
    """Means, variances and values of up to 5 components and 3 targets."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 3)))
    means, values = draw(arrays(shape)), draw(arrays(shape[1]))
    return means, draw(arrays(shape, least, 4.0)), values


@st.composite
def levelled(draw):
    means, variances, _ = draw(mixtures())
    return means, variances, draw(st.floats(0.02, 0.98))


@st.composite
def pairs(draw, least=3, most=9, low=-3.0):
    count = draw(st.integers(least, most))
    return draw(arrays(count, low)), draw(arrays(count, low))


@st.composite
def several(draw):
    """Two samples that vary, so that a test is defined."""
    first, second = draw(pairs())
    return first + 0.01 * np.arange(len(first)) ** 2, second + 0.02 * np.arange(len(second))


unit = st.integers(1, 10).flatmap(lambda count: st.tuples(arrays(count, 0.0, 1.0)))
counted = st.tuples(st.integers(1, 60), st.floats(0, 1), st.floats(0.5, 0.99)).map(
    lambda case: (case[0], round(case[0] * case[1]), case[2])
)
tailed = st.tuples(st.integers(1, 7), st.floats(0.5, 0.99))
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=5).map(lambda values: (values,))


# The numbers of this package, as numpy arrays.


def tensors(*values):
    return [torch.from_numpy(value) if isinstance(value, np.ndarray) else value for value in values]


def by_mcbn(function, **options):
    def call(*case):
        return np.asarray(function(*tensors(*case), **options))

    return call


def of_logits(function):
    """Call a function of probabilities, and of labels if it takes them, with logits."""

    def call(logits, targets):
        logs = torch.from_numpy(logits).log_softmax(1)
        given_logs = function is scores.negative_log_likelihood
        values = logs if given_logs else logs.exp()
        takes = (
            (values,) if function is categorical.entropy else (values, torch.from_numpy(targets))
        )
        return function(*takes).double().numpy()

    return call


def softmax(row):
    """The softmax of one row, in 30 digits."""
    weights = [mp.exp(mp.mpf(float(value))) for value in row]
    return [weight / mp.fsum(weights) for weight in weights]


def by_rows(function):
    """Turn a reference for one example, in 30 digits, into one for all."""

    def call(logits, targets):
        return [
            float(function(softmax(row), int(y))) for row, y in zip(logits, targets, strict=True)
        ]

    return call


def entropy_of(p):
    return -mp.fsum(x * mp.log(x) for x in p)


# Calibration.


def cells(confidence, edges):
    """The examples of each right-closed bin, 0 in the first."""
    for place, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = [i for i, c in enumerate(confidence) if low < c <= high or (place == 0 and c == 0)]
        if inside:
            yield inside


def width_edges(_, bins=15):
    return [k / bins for k in range(bins + 1)]


def mass_edges(confidence, bins=15):
    """Bin k ends at the example of rank ceil(k n / bins)."""
    ordered, count = sorted(confidence.tolist()), len(confidence)
    ends = {ordered[math.ceil(k * count / bins) - 1] for k in range(1, bins)}
    return [0.0, *sorted(end for end in ends if 0 <= end < ordered[-1]), 1.0]


def gaps_by_loop(confidence, correct, edges):
    """Share, gap and outcomes of each bin that holds any."""
    for inside in cells(confidence.tolist(), edges):
        gap = math.fsum(float(correct[i]) - confidence[i] for i in inside) / len(inside)
        yield len(inside) / len(confidence), gap, [float(correct[i]) for i in inside]


def gaps_by_scipy(confidence, correct, edges):
    """As `gaps_by_loop`: left-closed bins of the negated numbers are right-closed bins."""
    places = sorted(set(edges[1:]))
    ends = np.array([-1.5, *(-np.array(places[::-1][1:])), 0.5])
    # -c in [-e, ...) puts c = e below; what is up to the first edge goes to the last bin.
    index = np.digitize(-confidence, ends[1:-1], right=False)
    count = np.bincount(index, minlength=len(places))
    total = np.bincount(index, correct - confidence, minlength=len(places))
    return [
        (n / len(confidence), t / n, correct[index == k].astype(float))
        for k, (n, t) in enumerate(zip(count, total, strict=True))
        if n
    ]


def combined(norm, gaps):
    if norm == "l1":
        return math.fsum(share * abs(gap) for share, gap, _ in gaps)
    if norm == "l2":
        return math.sqrt(math.fsum(share * gap**2 for share, gap, _ in gaps))
    if norm == "max":
        return max(abs(gap) for _, gap, _ in gaps)
    chance = [np.var(y, ddof=1) / len(y) if len(y) > 1 else 0.0 for _, _, y in gaps]
    square = math.fsum(
        share * (gap**2 - v)
        for (share, gap, y), v in zip(gaps, chance, strict=True) if len(y) > 1
    )  # fmt: skip
    return math.sqrt(max(square, 0.0))


def binned(norm, edges, find):
    return lambda confidence, correct: combined(
        norm, list(find(confidence, correct, edges(confidence)))
    )


def classwise(find):
    def call(logits, targets):
        p = special.softmax(logits, axis=1)
        return np.mean([combined("l1", list(find(p[:, c], targets == c, width_edges(p))))
                        for c in range(p.shape[1])])  # fmt: skip

    return call


def classwise_by_mcbn(logits, targets):
    p = torch.from_numpy(special.softmax(logits, axis=1))
    return calibration.classwise_calibration_error(p, torch.from_numpy(targets))


def centers(cells):
    """Centres of equal cells of the unit interval."""
    return (np.arange(cells) + 0.5) / cells


NARROWEST = 0.02  # bandwidth: the waves below resolve no narrower kernel
CENTERS = centers(8192)
WAVES = np.arange(1, int(9 / (math.pi * NARROWEST)) + 2)


def masses(confidence, correct):
    """Cells that hold mass, and the mass: each residual is shared by the two nearest."""
    mass = {}
    for c, y in zip(confidence, correct, strict=True):
        left = math.floor(c * 8192 - 0.5)
        part = c * 8192 - 0.5 - left
        for cell, weight in ((left, 1 - part), (left + 1, part)):
            cell = min(max(cell, 0), 8191)
            mass[cell] = mass.get(cell, 0.0) + weight * (float(y) - c) / len(confidence)
    return np.array(list(mass)), np.array(list(mass.values()))


def smoothed_by_images(places, mass, cells, width):
    """Sums of Gaussians and their mirror images at 0 and 1, as far as nine bandwidths."""
    points, total = centers(cells)[:, None], 0.0
    far = 2 * math.ceil((9 * width + 1) / 2)
    for shift in range(-far, far + 2, 2):
        for sign in (1, -1):
            scaled = (points - (shift + sign * places)) / width
            total = total + np.exp(-0.5 * scaled * scaled) @ mass
    return total / (width * math.sqrt(2 * math.pi))


@functools.cache
def cosines(cells):
    """All waves at the centres of the cells."""
    return np.cos(math.pi * centers(cells)[:, None] * WAVES)


def smoothed_by_waves(places, mass, cells, width):
    """The same as a sum of cosines."""
    waves = WAVES[: int(9 / (math.pi * width)) + 1]
    decay = 2 * np.exp(-0.5 * (width * math.pi * waves) ** 2)
    amplitudes = np.cos(math.pi * waves[:, None] * places) @ mass
    return mass.sum() + cosines(cells)[:, : len(waves)] @ (decay * amplitudes)


def smooth(smoothed_by):
    def call(confidence, correct):
        where, mass = masses(confidence, correct)

        def excess(width):
            return np.abs(smoothed_by(CENTERS[where], mass, len(CENTERS), width)).mean() - width

        # The error is at most 1.
        wide = excess(NARROWEST) > 0
        return optimize.brentq(excess, NARROWEST, 1.01, xtol=1e-13) if wide else None

    return call


def smooth_by_mcbn(confidence, correct):
    error = by_mcbn(calibration.smooth_calibration_error)(confidence, correct)
    return error if error > NARROWEST else None


def smooth_of_shares(confidence, correct):
    error = formulas.smooth_error_of_shares(mass_by_mcbn(confidence, correct))
    return error if error > NARROWEST else None


def quantile_error_by_counts(values):
    """Equal values are one, which occurs so often."""
    distinct, counts = np.unique(values, return_counts=True)
    return formulas.quantile_error_of_counts(*tensors(distinct, counts.astype(float)))


def separation_by_counts(inside, outside):
    """Equal values are one, which occurs so often."""
    distinct = np.unique([*inside, *outside])
    counts = [(distinct[:, None] == values).sum(1).astype(float) for values in (inside, outside)]
    return formulas.separation_of_counts(*tensors(*counts))


def mass_by_mcbn(confidence, correct):
    places, shares = formulas.residual_shares(*tensors(confidence, correct))
    return np.bincount(places.flatten(), shares.flatten(), formulas.CELLS) / len(confidence)


def mass_by_cells(confidence, correct):
    where, mass = masses(confidence, correct)
    return np.bincount(where, mass, 8192)


def mass_by_hats(confidence, correct):
    """Mass of each cell by its distance from each place; beyond the outer centres all is in one."""
    places = np.clip(confidence, CENTERS[0], CENTERS[-1])
    hats = np.maximum(0, 1 - np.abs(CENTERS[:, None] - places) * 8192)
    return hats @ ((correct - confidence) / len(confidence))


def smoothed_by_mcbn(confidence, correct):
    mass = mass_by_mcbn(confidence, correct)
    return formulas.smoothed_residuals(mass, width=0.06, cells=64).numpy()


def smoothed(smoothed_by):
    def call(confidence, correct):
        where, mass = masses(confidence, correct)
        return smoothed_by(CENTERS[where], mass, 64, 0.06)

    return call


def quantile_error_by_quadrature(pit):
    ends = [0.0, *sorted(pit), 1.0]
    heights = [k / len(pit) for k in range(len(pit) + 1)]
    total = []
    for (low, high), h in zip(itertools.pairwise(ends), heights, strict=True):
        for a, b in ((min(low, h), min(high, h)), (max(low, h), max(high, h))):
            total.append(integrate.quad(lambda u, h=h: abs(u - h), a, b, epsabs=1e-15)[0])
    return math.fsum(total)


def quantile_error_by_transport(pit):
    """The Wasserstein distance between the PITs and a uniform distribution, by quantiles."""
    total, count = [], len(pit)
    for k, x in enumerate(sorted(pit)):
        a, b = mp.mpf(k) / count, mp.mpf(k + 1) / count
        x = mp.mpf(float(x))
        ends = sorted((a, b, min(max(x, a), b)))
        total += [abs(x - (p + q) / 2) * (q - p) for p, q in itertools.pairwise(ends)]
    return float(mp.fsum(total))


def steck(count, width):
    """Chance that the whole curve is in the band, by Steck's determinant."""
    low = [max(mp.mpf(i + 1) / count - width, 0) for i in range(count)]
    high = [min(mp.mpf(i) / count + width, 1) for i in range(count)]
    rows = mp.matrix(count)
    for i, j in itertools.product(range(count), repeat=2):
        power = j - i + 1
        if power >= 0:
            gap = max(high[i] - low[j], mp.mpf(0))
            rows[i, j] = (gap**power if power else mp.mpf(1)) / mp.factorial(power)
    return mp.factorial(count) * mp.det(rows)


# Detection.


def average_precision_by_thresholds(values, positive):
    total, before = [], 0
    for threshold in sorted(set(values), reverse=True):
        flagged = values >= threshold
        hits = int((positive & flagged).sum())
        total.append((hits - before) / positive.sum() * hits / flagged.sum())
        before = hits
    return math.fsum(total)


def average_precision_by_ranks(values, positive):
    above = stats.rankdata(-values, method="max")
    hits = stats.rankdata(-values[positive], method="max")
    return np.mean(hits / above[positive])


def false_alarms_by_thresholds(values, positive):
    for threshold in sorted(set(values), reverse=True):
        if (values[positive] >= threshold).mean() >= 0.95:
            return float((values[~positive] >= threshold).mean())
    return None


def false_alarms_by_rank(values, positive):
    ordered = np.sort(values[positive])[::-1]
    return float((values[~positive] >= ordered[math.ceil(0.95 * len(ordered)) - 1]).mean())


def auroc_by_pairs(values, positive):
    pairs = itertools.product(values[positive], values[~positive])
    won = [1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs]
    return math.fsum(won) / len(won)


def apart(function):
    return lambda inside, outside: function(
        np.concatenate([inside, outside]), np.arange(len(inside) + len(outside)) >= len(inside)
    )


def areas(uncertainty, loss, order):
    """AURC, E-AURC and AUGRC of one order, by the definition."""
    count, accepted = len(loss), np.cumsum(loss[order])
    best = np.cumsum(np.sort(loss))
    numbers = np.arange(1, count + 1)
    curve = np.concatenate([[0.0], accepted]) / count
    area = np.mean(accepted / numbers)
    return area, area - np.mean(best / numbers), np.trapezoid(curve, dx=1 / count)


def areas_over_all_orders(uncertainty, loss):
    """The mean over all orders of ties."""
    orders = [order for order in map(list, itertools.permutations(range(len(loss))))
              if (np.diff(uncertainty[order]) >= 0).all()]  # fmt: skip
    return np.mean([areas(uncertainty, loss, order) for order in orders], axis=0)


def areas_of_mean_ties(uncertainty, loss):
    """Ties have their mean loss, in any order."""
    shared = np.array([loss[uncertainty == u].mean() for u in uncertainty])
    order = np.argsort(uncertainty, kind="stable")
    area, _, generalised = areas(uncertainty, shared, order)
    best = np.mean(np.cumsum(np.sort(loss)) / np.arange(1, len(loss) + 1))
    return area, area - best, generalised


def areas_by_mcbn(uncertainty, loss):
    curve = detection.risk_coverage(*tensors(uncertainty, loss))
    return curve.area, curve.excess_area, curve.generalized_area


# Real targets.


def components(means, variances, column):
    return [(mp.mpf(float(m)), mp.sqrt(mp.mpf(float(v))))
            for m, v in zip(means[:, column], variances[:, column], strict=True)]  # fmt: skip


def of_mixture(function):
    def call(means, variances, values):
        return [float(function(components(means, variances, k), mp.mpf(float(y))))
                for k, y in enumerate(values)]  # fmt: skip

    return call


def distance(d, s):
    """E|d + s Z|."""
    if s == 0:
        return abs(d)
    z = d / s
    return s * mp.sqrt(2 / mp.pi) * mp.exp(-z * z / 2) + d * mp.erf(z / mp.sqrt(2))


def crps_by_definition(parts, y):
    count = len(parts)
    pairs = mp.fsum(distance(m - n, mp.sqrt(s * s + r * r)) for m, s in parts for n, r in parts)
    return mp.fsum(distance(y - m, s) for m, s in parts) / count - pairs / (2 * count**2)


def density(parts, y):
    return mp.fsum(mp.npdf(y, m, s) for m, s in parts) / len(parts)


def below(parts, y):
    return mp.fsum(mp.ncdf(y, m, s) for m, s in parts) / len(parts)


def one_gaussian(function):
    """A reference for a mixture, called with the first component only."""
    return lambda means, variances, values: function(means[:1], variances[:1], values)


def quantile_by_root(means, variances, level):
    def at(column):
        def excess(x):
            return stats.norm.cdf(x, means[:, column], variances[:, column] ** 0.5).mean() - level

        return optimize.brentq(excess, -40, 40, xtol=1e-13, rtol=1e-14)

    return [at(column) for column in range(means.shape[1])]


def quantile_by_newton(means, variances, level):
    quantiles = []
    for column, start in enumerate(quantile_by_root(means, variances, level)):
        parts = components(means, variances, column)
        x = mp.mpf(start) + mp.mpf("1e-6")
        for _ in range(6):
            x -= (below(parts, x) - mp.mpf(level)) / density(parts, x)
        quantiles.append(float(x))
    return quantiles


def ensemble_by_loop(fair):
    def call(draws, _, values):
        count = len(draws)
        pairs = [math.fsum(abs(a - b) for a in column for b in column) for column in draws.T]
        pair_count = count * (count - 1) if fair else count**2
        return [math.fsum(abs(column - y)) / count - pair / (2 * pair_count)
                for column, y, pair in zip(draws.T, values, pairs, strict=True)]  # fmt: skip

    return call


def ensemble_by_scoringrules(estimator):
    return lambda draws, _, values: scoringrules.crps_ensemble(
        values, draws, m_axis=0, estimator=estimator
    )


@st.composite
def members(draw):
    means, variances, values = draw(mixtures())
    return np.concatenate([means, means[:1] + 0.5]), variances, values


# Predictives.


def uncertainties_by_mcbn(draws):
    predictive = mcbn.Categorical().summarize(torch.from_numpy(draws))
    names = ("entropy", "expected_entropy", "mutual_information", "variation_ratio", "confidence",
             "probabilities", "variance")  # fmt: skip
    return np.concatenate([getattr(predictive, name).numpy().ravel() for name in names])


def uncertainties_by_loop(draws):
    p = [[softmax(row) for row in rows] for rows in draws.tolist()]
    count, batch = len(p), len(p[0])
    mean = [[mp.fsum(d[i][c] for d in p) / count for c in range(len(p[0][0]))]
            for i in range(batch)]  # fmt: skip
    total = [entropy_of(row) for row in mean]
    expected = [mp.fsum(entropy_of(d[i]) for d in p) / count for i in range(batch)]
    votes = [[int(np.argmax(d[i])) for d in draws] for i in range(batch)]
    ratio = [1 - max(v.count(c) for c in v) / mp.mpf(count) for v in votes]
    variance = [mp.fsum((d[i][c] - m) ** 2 for d in p) / count
                for i, row in enumerate(mean) for c, m in enumerate(row)]  # fmt: skip
    parts = [*total, *expected, *(a - b for a, b in zip(total, expected, strict=True)), *ratio,
             *(max(row) for row in mean), *(m for row in mean for m in row), *variance]  # fmt: skip
    return [float(part) for part in parts]


def uncertainties_by_scipy(draws):
    p = special.softmax(draws, axis=2)
    mean = p.mean(0)
    total, expected = stats.entropy(mean, axis=1), stats.entropy(p, axis=2).mean(0)
    ratio = 1 - stats.mode(draws.argmax(2), axis=0).count / len(draws)
    information = stats.entropy(p, mean[None], axis=2).mean(0)  # mean divergence from the mean
    return np.concatenate(
        [total, expected, information, ratio, mean.max(1), mean.ravel(), p.var(0).ravel()]
    )


# Scores of uncertainty.


def score_by_mcbn(name):
    def call(draws):
        predictive = mcbn.Categorical("logits").summarize(torch.from_numpy(draws))
        return PREDICTIVE_SCORES[name](predictive).numpy()

    return call


def score_by_loop(of):
    """A score of one example, given its mean probabilities, those of each draw, and the logits."""

    def call(draws):
        found = []
        for rows in draws.transpose(1, 0, 2):
            each = [softmax(row) for row in rows.tolist()]
            mean = [mp.fsum(column) / len(each) for column in zip(*each, strict=True)]
            found.append(float(of(mean, each, [[mp.mpf(z) for z in row] for row in rows.tolist()])))
        return found

    return call


def mean_of(values):
    return mp.fsum(values) / len(values)


def minority(mean, each, logits):
    votes = [row.index(max(row)) for row in logits]
    return 1 - mp.mpf(max(votes.count(vote) for vote in votes)) / len(votes)


def lead(mean, each, logits):
    first, second = sorted(mean, reverse=True)[:2]
    return 1 - first + second


def divergence(mean, each, logits):
    return mean_of([mp.fsum(p * mp.log(p / m) for p, m in zip(row, mean, strict=True))
                    for row in each])  # fmt: skip


def by_mean(of):
    """A score of the mean probabilities, axes (examples, classes)."""
    return lambda draws: of(special.softmax(draws, axis=2).mean(0))


@st.composite
def neighbourhoods(draw):
    """Queries, the rows that are searched, and which neighbour."""
    channels, rows = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    queries = draw(arrays((draw(st.integers(1, 4)), channels)))
    return queries, draw(arrays((rows, channels))), draw(st.integers(1, rows))


def distances_by_loop(queries, training, k):
    return [
        float(sorted(mp.sqrt(mp.fsum((mp.mpf(a) - mp.mpf(b)) ** 2
                                     for a, b in zip(query, row, strict=True)))
                     for row in training.tolist())[k - 1])
        for query in queries.tolist()
    ]  # fmt: skip


def distances_by_scikit(queries, training, k):
    search = neighbors.NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(training)
    return search.kneighbors(queries)[0][:, -1]


@st.composite
def uncertain_errors(draw):
    """Few, so that all orders of ties can be gone through; one error and one right answer."""
    values, wrong = draw(flags(-2.0, 2.0, least=2, most=5))
    wrong = wrong.copy()
    wrong[:2] = False, True
    return values, wrong


def errors_by_mcbn(values, wrong):
    # The truth is class 0, and errors are of class 1.
    logits = torch.tensor([[[0.0, 4.0 if each else -4.0] for each in wrong]], dtype=torch.float64)
    predictive = mcbn.Categorical("logits").summarize(logits)
    rows = ScoredRows(predictive, torch.zeros(len(wrong), dtype=torch.long))
    found = error_detection(rows, torch.from_numpy(values), resamples=0)
    return [found[name].value for name in ("auroc_of_errors", "aurc", "e_aurc", "augrc")]


def joint_by_mcbn(means, variances, values):
    return mcbn.GaussianPredictive(*tensors(means[:, None], variances[:, None])).log_prob(
        torch.from_numpy(values[None])
    )


def joint_by_mpmath(means, variances, values):
    columns = (components(means, variances, k) for k in range(len(values)))
    total = [
        mp.fprod(mp.npdf(mp.mpf(float(y)), m, s) for y, (m, s) in zip(values, row, strict=True))
        for row in zip(*columns, strict=True)
    ]
    return [float(mp.log(mp.fsum(total) / len(means)))]


def joint_by_scipy(means, variances, values):
    each = stats.norm.logpdf(values, means, variances**0.5).sum(1)
    return [special.logsumexp(each) - math.log(len(means))]


def moments_by_mcbn(means, variances, _):
    p = mcbn.GaussianPredictive(*tensors(means, variances))
    return [*p.mean, *p.epistemic_variance, *p.aleatoric_variance, *p.variance]


def moments_by_loop(means, variances, _):
    count = len(means)
    mean = [math.fsum(column) / count for column in means.T]
    spread = [math.fsum((x - m) ** 2 for x in column) / count
              for column, m in zip(means.T, mean, strict=True)]  # fmt: skip
    noise = [math.fsum(column) / count for column in variances.T]
    return [*mean, *spread, *noise, *(a + b for a, b in zip(spread, noise, strict=True))]


def moments_by_numpy(means, variances, _):
    second = (variances + means**2).mean(0)  # the variance of a mixture by its moments
    mean = means.mean(0)
    return [*mean, *means.var(0), *variances.mean(0), *(second - mean**2)]


# Tests and intervals.


def student(t, freedom):
    """Two-sided p value."""
    x = freedom / (freedom + t * t)
    return float(mp.betainc(mp.mpf(freedom) / 2, mp.mpf("0.5"), 0, x, regularized=True))


def moments_of(values):
    exact = [mp.mpf(float(value)) for value in values]
    mean = mp.fsum(exact) / len(exact)
    return mean, mp.fsum((x - mean) ** 2 for x in exact) / (len(exact) - 1), len(exact)


def welch_by_formula(first, second):
    (a, va, n), (b, vb, m) = moments_of(first), moments_of(second)
    square = va / n + vb / m
    freedom = square**2 / ((va / n) ** 2 / (n - 1) + (vb / m) ** 2 / (m - 1))
    return student((a - b) / mp.sqrt(square), freedom)


def paired_by_formula(first, second):
    mean, variance, count = moments_of(first - second)
    return student(mean / mp.sqrt(variance / count), count - 1)


def point_by_root(values, _):
    mean, variance, count = moments_of(values)
    half = optimize.brentq(lambda t: student(mp.mpf(t), count - 1) - 0.05, 0.1, 40, xtol=1e-13)
    half = half * mp.sqrt(variance / count)
    return [float(mean), float(mean - half), float(mean + half)]


def point_by_scipy(values, _):
    ends = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    return [np.mean(values), *ends]


def point_by_mcbn(values, _):
    mean = results.point(values.tolist())
    return [mean.mean, mean.low, mean.high]


def slope_by_sums(x, y):
    logs = [(mp.log(mp.mpf(float(a))), mp.log(mp.mpf(float(b)))) for a, b in zip(x, y, strict=True)]
    mean = mp.fsum(a for a, _ in logs) / len(logs), mp.fsum(b for _, b in logs) / len(logs)
    top = mp.fsum((a - mean[0]) * (b - mean[1]) for a, b in logs)
    return float(top / mp.fsum((a - mean[0]) ** 2 for a, _ in logs))


@st.composite
def powers(draw):
    sizes = draw(st.lists(st.integers(1, 500), min_size=2, max_size=6, unique=True))
    return tuple(sizes), tuple(draw(arrays(len(sizes), 0.1, 5.0)).tolist())


def holm_by_closure(values):
    """A hypothesis is rejected if every set that contains it is rejected by Bonferroni."""
    sets = [s for size in range(1, len(values) + 1)
            for s in itertools.combinations(range(len(values)), size)]  # fmt: skip
    return [max(min(1.0, len(s) * min(values[i] for i in s)) for s in sets if k in s)
            for k in range(len(values))]  # fmt: skip


def holm_by_steps(values):
    order, count = np.argsort(values, kind="stable"), len(values)
    adjusted = np.empty(count)
    scaled = np.array(values)[order] * np.arange(count, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted


def wilson_by_mcbn(count, hits, level):
    one = torch.tensor([count])
    edges = torch.tensor([0.0, 1.0], dtype=torch.float64)
    bins = Reliability(one, torch.tensor([hits]), torch.zeros(2, 1, dtype=torch.int64), edges)
    return [float(end) for end in bins.interval(level=level)]


def wilson_by_roots(count, hits, level):
    """The shares at which the score test is just passed."""
    share, z2 = mp.mpf(hits) / count, mp.mpf(stats.norm.isf((1 - level) / 2)) ** 2
    a, b, c = 1 + z2 / count, -(2 * share + z2 / count), share**2
    root = mp.sqrt(b * b - 4 * a * c)
    return [float((-b - root) / (2 * a)), float((-b + root) / (2 * a))]


def share_by_library(method):
    def call(count, hits, level):
        interval = stats.binomtest(hits, count).proportion_ci(level, method=method)
        return [interval.low, interval.high]

    return call


def exact_by_mcbn(count, hits, level):
    members = torch.arange(count)[:, None].lt(hits).expand(count, 2)
    coverage = mcbn.PredictionSets(members).coverage(torch.zeros(count).long(), level=level)
    return [coverage.low, coverage.high]


def exact_by_roots(count, hits, level):
    tail = (1 - level) / 2

    def root(excess):
        return optimize.brentq(excess, 1e-15, 1 - 1e-15, xtol=1e-15, rtol=1e-14)

    low = root(lambda p: stats.binom.sf(hits - 1, count, p) - tail) if hits else 0.0
    high = root(lambda p: stats.binom.cdf(hits, count, p) - tail) if hits < count else 1.0
    return [low, high]


def exact_by_beta(count, hits, level):
    tail = (1 - level) / 2
    return [stats.beta.ppf(tail, hits, count - hits + 1) if hits else 0.0,
            stats.beta.isf(tail, hits + 1, count - hits) if hits < count else 1.0]  # fmt: skip


# The table.


@dataclass(frozen=True)
class Metric:
    """A public number, a strategy for cases, two references; `atol` where it comes near 0."""

    cases: Any
    tested: Any
    first: Any
    second: Any
    atol: float = 1e-13


def binned_metric(binning, norm, **options):
    edges = width_edges if binning == "width" else mass_edges
    tested = by_mcbn(calibration.expected_calibration_error, binning=binning, norm=norm, **options)
    name = "debiased" if options else norm
    return Metric(flags(), tested, binned(name, edges, gaps_by_loop),
                  binned(name, edges, gaps_by_scipy), 3e-8 if options else 1e-13)  # fmt: skip


def of_classes_by_mcbn(logits, labels):
    # Only their order counts, in which a softmax may make ties.
    known = torch.zeros(len(labels), dtype=torch.float64)
    values = torch.from_numpy(logits)
    predictive = mcbn.CategoricalPredictive(values, known, torch.zeros_like(values), known, 1)
    found = mcbn.class_scores(predictive, torch.from_numpy(labels), resamples=0)
    every = [*found.by_class.values(), found.mean]
    values = [[each[name].value for name in ("recall", "precision", "iou")] for each in every]
    return np.nan_to_num(values, nan=-1.0)


def of_classes_by_loop(logits, labels):
    """By counting; -1 where there is nothing to count."""
    guesses, rows = [max(range(len(z)), key=lambda k: z[k]) for z in logits], []
    for k in range(logits.shape[1]):
        truth = {i for i, label in enumerate(labels) if label == k}
        guessed = {i for i, guess in enumerate(guesses) if guess == k}
        wholes = (truth, guessed, truth | guessed)
        rows.append([Fraction(len(truth & guessed), len(whole)) if whole else None
                     for whole in wholes])  # fmt: skip
    known = [[each for each in column if each is not None] for column in zip(*rows, strict=True)]
    rows.append([sum(column) / len(column) for column in known])
    return np.array([[-1.0 if each is None else float(each) for each in row] for row in rows])


def of_classes_by_confusion(logits, labels):
    table = metrics.confusion_matrix(labels, logits.argmax(1), labels=range(logits.shape[1]))
    hits, sums = table.diagonal(), (table.sum(1), table.sum(0))
    wholes = np.stack([*sums, sums[0] + sums[1] - hits], 1)
    with np.errstate(invalid="ignore"):
        values = hits[:, None] / wholes
    return np.nan_to_num(np.vstack([values, np.nanmean(values, 0)]), nan=-1.0)


def labels_by_mcbn(logits, labels):
    predictive = mcbn.Bernoulli("logits").summarize(torch.from_numpy(logits[None]))
    targets = torch.from_numpy(labels)
    scores_of_all = mcbn.evaluate(predictive, targets, resamples=0, progress=False)
    found = mcbn.class_scores(predictive, targets, resamples=0)
    of_labels = [[each[name].value for name in OF_LABELS] for each in found.by_class.values()]
    return np.concatenate([[scores_of_all[name].value for name in OF_ALL_LABELS],
                           np.ravel(of_labels)])  # fmt: skip


OF_ALL_LABELS = ("accuracy", "exact_match", "f1_micro", "f1_macro", "auroc_micro", "auroc_macro",
                 "aupr_micro", "aupr_macro")  # fmt: skip
OF_LABELS = ("recall", "precision", "f1", "auroc", "aupr", "nll", "brier")


def mean_of_known(values):
    known = [each for each in values if not math.isnan(each)]
    return float(sum(known) / len(known)) if known else math.nan


def f1_by_counts(guesses, truth):
    both = sum(guesses) + sum(truth)
    hits = sum(g and t for g, t in zip(guesses, truth, strict=True))
    return 2 * hits / both if both else math.nan


def auroc_of_label(values, truth):
    pairs = [(a > b) + Fraction(a == b, 2)
             for a, s in zip(values, truth, strict=True) if s
             for b, t in zip(values, truth, strict=True) if not t]  # fmt: skip
    return float(sum(pairs) / Fraction(len(pairs))) if pairs else math.nan


def aupr_of_label(values, truth):
    """By thresholds from above: precision at each, by the recall that is gained there."""
    if not any(truth):
        return math.nan
    total, before = Fraction(0), Fraction(0)
    for threshold in sorted(set(values), reverse=True):
        above = [bool(t) for v, t in zip(values, truth, strict=True) if v >= threshold]
        recall = Fraction(sum(above), int(sum(truth)))
        total += (recall - before) * Fraction(sum(above), len(above))
        before = recall
    return float(total)


def labels_by_loop(logits, labels):
    columns = [([float(z) for z in zs], [int(y) for y in ys])
               for zs, ys in zip(logits.T, labels.T, strict=True)]  # fmt: skip
    every = [z for zs, _ in columns for z in zs], [y for _, ys in columns for y in ys]
    right = [[(z > 0) == bool(y) for z, y in zip(*row, strict=True)]
             for row in zip(logits, labels, strict=True)]  # fmt: skip
    found = [np.mean(right), np.mean([all(row) for row in right])]
    for measure in (lambda z, y: f1_by_counts([v > 0 for v in z], y), auroc_of_label,
                    aupr_of_label):  # fmt: skip
        found += [measure(*every), mean_of_known([measure(*column) for column in columns])]
    for values, truth in columns:
        guesses = [v > 0 for v in values]
        hits = sum(g and t for g, t in zip(guesses, truth, strict=True))
        chances = [1 / (1 + mp.exp(-mp.mpf(v) if t else mp.mpf(v)))
                   for v, t in zip(values, truth, strict=True)]  # fmt: skip
        found += [hits / sum(truth) if any(truth) else math.nan,
                  hits / sum(guesses) if any(guesses) else math.nan,
                  f1_by_counts(guesses, truth), auroc_of_label(values, truth),
                  aupr_of_label(values, truth),
                  float(-mp.fsum(map(mp.log, chances)) / len(chances)),
                  float(mp.fsum((1 - p) ** 2 for p in chances) / len(chances))]  # fmt: skip
    return np.array(found, float)


def labels_by_scikit(logits, labels):
    # The order of logits is that of probabilities, of which rounding may make ties.
    guesses = logits > 0

    def f1(truth, guess):
        return metrics.f1_score(truth, guess, zero_division=np.nan)

    def auroc(truth, values):
        mixed = 0 < truth.sum() < len(truth)
        return metrics.roc_auc_score(truth, values) if mixed else math.nan

    def aupr(truth, values):
        return metrics.average_precision_score(truth, values) if truth.any() else math.nan

    count = labels.shape[1]
    found = [1 - metrics.hamming_loss(labels, guesses),
             np.mean((labels == guesses).all(1))]  # fmt: skip
    for measure, values in ((f1, guesses), (auroc, logits), (aupr, logits)):
        each = [measure(labels[:, k], values[:, k]) for k in range(count)]
        found += [measure(labels.ravel(), values.ravel()), mean_of_known(each)]
    for k in range(count):
        truth, guess = labels[:, k], guesses[:, k]
        p = special.expit(logits[:, k])
        found += [metrics.recall_score(truth, guess, zero_division=np.nan),
                  metrics.precision_score(truth, guess, zero_division=np.nan),
                  f1(truth, guess), auroc(truth, logits[:, k]), aupr(truth, logits[:, k]),
                  np.mean(np.logaddexp(0, np.where(truth, -1, 1) * logits[:, k])),
                  metrics.brier_score_loss(truth, p, pos_label=1)]  # fmt: skip
    return np.array(found, float)


@st.composite
def several_labels(draw):
    """Logits of up to 8 examples and 3 labels, and whether the labels are there."""
    shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 3)))
    logits = draw(arrays(shape, -4.0, 4.0)).round(3)
    return logits, draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 1)))


def of_labels_by_mcbn(logits):
    p = mcbn.Bernoulli("logits").summarize(torch.from_numpy(logits))
    parts = (p.log_odds, p.probabilities, p.entropy, p.expected_entropy, p.variance,
             p.mutual_information, p.variation_ratio)  # fmt: skip
    return np.stack([part.numpy() for part in parts])


def binary_entropy(p):
    return -sum(q * mp.log(q) for q in (p, 1 - p) if q > 0)


def of_labels_by_loop(logits):
    """Of every label by itself, with many digits."""
    draws, *shape = logits.shape
    found = np.zeros((7, *shape))
    for place in itertools.product(*map(range, shape)):
        each = [1 / (1 + mp.exp(-mp.mpf(float(z)))) for z in logits[(slice(None), *place)]]
        mean = mp.fsum(each) / draws
        expected = mp.fsum(map(binary_entropy, each)) / draws
        ayes = sum(z > 0 for z in logits[(slice(None), *place)].tolist())
        found[(slice(None), *place)] = [
            mp.log(mean / (1 - mean)), mean, binary_entropy(mean), expected,
            mp.fsum((p - mean) ** 2 for p in each) / draws, binary_entropy(mean) - expected,
            min(ayes, draws - ayes) / draws,
        ]  # fmt: skip
    return found


def of_labels_by_scipy(logits):
    p = special.expit(logits)
    absent, present = (special.logsumexp(special.log_expit(s * logits), axis=0) for s in (-1, 1))
    mean = p.mean(0)
    total = stats.entropy([mean, special.expit(-logits).mean(0)], axis=0)
    expected = stats.entropy([p, special.expit(-logits)], axis=0).mean(0)
    ayes = (logits > 0).mean(0)
    return np.stack([present - absent, mean, total, expected, p.var(0),
                     np.maximum(total - expected, 0), np.minimum(ayes, 1 - ayes)])  # fmt: skip


METRICS = {
    "label_scores": Metric(several_labels(), labels_by_mcbn, labels_by_loop, labels_by_scikit),
    "BernoulliPredictive": Metric(
        drawn_logits(), of_labels_by_mcbn, of_labels_by_loop, of_labels_by_scipy
    ),
    "class_scores": Metric(
        classes(), of_classes_by_mcbn, of_classes_by_loop, of_classes_by_confusion
    ),
    "negative_log_likelihood": Metric(
        classes(), of_logits(scores.negative_log_likelihood), by_rows(lambda p, y: -mp.log(p[y])),
        lambda z, y: -special.log_softmax(z, axis=1)[np.arange(len(y)), y], 1e-12,
    ),
    "brier": Metric(
        classes(), of_logits(scores.brier),
        by_rows(lambda p, y: mp.fsum((q - (c == y)) ** 2 for c, q in enumerate(p))),
        lambda z, y: np.square(special.softmax(z, axis=1) - np.eye(z.shape[1])[y]).sum(1),
    ),
    "correct": Metric(
        classes(), lambda z, y: np.mean(of_logits(scores.correct)(z, y)),
        lambda z, y: np.mean([row.index(max(row)) == k for row, k in
                              zip(special.softmax(z, axis=1).tolist(), y, strict=True)]),
        lambda z, y: metrics.accuracy_score(y, special.softmax(z, axis=1).argmax(1)),
    ),
    "entropy": Metric(
        classes(), of_logits(categorical.entropy), by_rows(lambda p, _: entropy_of(p)),
        lambda z, _: stats.entropy(special.softmax(z, axis=1), axis=1),
    ),
    "squared_error": Metric(
        pairs(), by_mcbn(scores.squared_error),
        lambda a, b: [float((mp.mpf(float(x)) - mp.mpf(float(y))) ** 2)
                      for x, y in zip(a, b, strict=True)],
        lambda a, b: [metrics.mean_squared_error([x], [y]) for x, y in zip(a, b, strict=True)],
    ),
    "expected_calibration_error": binned_metric("width", "l1"),
    "expected_calibration_error, l2": binned_metric("width", "l2"),
    "expected_calibration_error, max": binned_metric("width", "max"),
    "expected_calibration_error, mass": binned_metric("mass", "l1"),
    "debiased_calibration_error": binned_metric("mass", "l2", debiased=True),
    "classwise_calibration_error": Metric(
        classes(), classwise_by_mcbn, classwise(gaps_by_loop), classwise(gaps_by_scipy),
    ),
    "smooth_calibration_error": Metric(
        flags(most=5), smooth_by_mcbn, smooth(smoothed_by_images), smooth(smoothed_by_waves), 1e-11,
    ),
    "smooth_error_of_shares": Metric(
        flags(most=5), smooth_of_shares, smooth(smoothed_by_images), smooth(smoothed_by_waves),
        1e-11,
    ),
    "quantile_error_of_counts": Metric(
        unit, quantile_error_by_counts, quantile_error_by_quadrature, quantile_error_by_transport
    ),
    "residual_shares": Metric(flags(most=5), mass_by_mcbn, mass_by_cells, mass_by_hats, 1e-11),
    "smoothed_residuals": Metric(
        flags(most=5), smoothed_by_mcbn,
        smoothed(smoothed_by_images), smoothed(smoothed_by_waves), 1e-11,
    ),
    "quantile_calibration_error": Metric(
        unit, by_mcbn(calibration.quantile_calibration_error), quantile_error_by_quadrature,
        quantile_error_by_transport,
    ),
    "pit_band": Metric(
        tailed, lambda n, level: calibration.pit_band(n, level=level),
        lambda n, level: float(mp.findroot(
            lambda w: steck(n, w) - mp.mpf(level),
            (calibration.pit_band(n, level=level) - 1e-3,
             calibration.pit_band(n, level=level) + 1e-3), solver="anderson")),
        lambda n, level: optimize.brentq(
            lambda w: stats.kstwo.cdf(w, n) - level, 0.5 / n, 1, xtol=1e-14, rtol=1e-13),
    ),
    "auroc": Metric(
        both_kinds(), by_mcbn(detection.auroc), auroc_by_pairs,
        lambda s, y: metrics.roc_auc_score(y, s),
    ),
    "aupr": Metric(
        both_kinds(), by_mcbn(detection.aupr), average_precision_by_thresholds,
        average_precision_by_ranks,
    ),
    "fpr95": Metric(
        both_kinds(), by_mcbn(detection.fpr95), false_alarms_by_thresholds, false_alarms_by_rank,
    ),
    "out_of_distribution": Metric(
        pairs(), lambda a, b: [getattr(detection.out_of_distribution(*tensors(a, b)), name)
                               for name in ("auroc", "aupr", "fpr95")],
        lambda a, b: [apart(f)(a, b) for f in (
            auroc_by_pairs, average_precision_by_thresholds, false_alarms_by_thresholds)],
        lambda a, b: [stats.mannwhitneyu(b, a, method="asymptotic").statistic / len(a) / len(b),
                      apart(average_precision_by_ranks)(a, b), apart(false_alarms_by_rank)(a, b)],
    ),
    "separation_of_counts": Metric(
        pairs(), separation_by_counts,
        lambda a, b: [apart(f)(a, b) for f in (
            auroc_by_pairs, average_precision_by_thresholds, false_alarms_by_thresholds)],
        lambda a, b: [stats.mannwhitneyu(b, a, method="asymptotic").statistic / len(a) / len(b),
                      apart(average_precision_by_ranks)(a, b), apart(false_alarms_by_rank)(a, b)],
    ),
    "risk_coverage": Metric(losses(), areas_by_mcbn, areas_over_all_orders, areas_of_mean_ties),
    "log_density": Metric(
        mixtures(), by_mcbn(mixture.log_density), of_mixture(lambda p, y: mp.log(density(p, y))),
        lambda m, v, y: special.logsumexp(stats.norm.logpdf(y, m, v**0.5), axis=0)
        - math.log(len(m)), 1e-11,
    ),
    "cdf": Metric(
        mixtures(), by_mcbn(mixture.cdf), of_mixture(below),
        lambda m, v, y: stats.norm.cdf(y, m, v**0.5).mean(0),
    ),
    "quantile": Metric(
        levelled(), lambda m, v, level: mixture.quantile(*tensors(m, v), level),
        quantile_by_newton, quantile_by_root, 1e-9,
    ),
    "crps": Metric(
        mixtures(), by_mcbn(mixture.crps), of_mixture(crps_by_definition),
        lambda m, v, y: scoringrules.crps_mixnorm(y, m, v**0.5, m_axis=0),
    ),
    "gaussian_log_density": Metric(
        mixtures(), lambda m, v, y: mixture.gaussian_log_density(*tensors(m[0], v[0], y)),
        one_gaussian(of_mixture(lambda p, y: mp.log(density(p, y)))),
        lambda m, v, y: stats.norm.logpdf(y, m[0], v[0] ** 0.5), 1e-11,
    ),
    "gaussian_crps": Metric(
        mixtures(), lambda m, v, y: mixture.gaussian_crps(*tensors(m[0], v[0], y)),
        one_gaussian(of_mixture(crps_by_definition)),
        lambda m, v, y: scoringrules.crps_normal(y, m[0], v[0] ** 0.5),
    ),
    "ensemble_crps": Metric(
        members(), lambda m, _, y: mixture.ensemble_crps(*tensors(m, y)), ensemble_by_loop(False),
        ensemble_by_scoringrules("nrg"),
    ),
    "ensemble_crps, fair": Metric(
        members(), lambda m, _, y: mixture.ensemble_crps(*tensors(m, y), fair=True),
        ensemble_by_loop(True), ensemble_by_scoringrules("fair"),
    ),
    "CategoricalPredictive": Metric(
        drawn_logits(), uncertainties_by_mcbn, uncertainties_by_loop, uncertainties_by_scipy,
    ),
    "max_softmax": Metric(
        drawn_logits(), score_by_mcbn("max_softmax"), score_by_loop(lambda m, *_: 1 - max(m)),
        by_mean(lambda p: 1 - p.max(1)),
    ),
    "margin": Metric(
        drawn_logits(), score_by_mcbn("margin"), score_by_loop(lead),
        by_mean(lambda p: 1 + np.diff(-np.sort(-p, axis=1)[:, :2], axis=1)[:, 0]),
    ),
    "entropy, of predictions": Metric(
        drawn_logits(), score_by_mcbn("entropy"), score_by_loop(lambda m, *_: entropy_of(m)),
        by_mean(lambda p: stats.entropy(p, axis=1)),
    ),
    "expected_entropy": Metric(
        drawn_logits(), score_by_mcbn("expected_entropy"),
        score_by_loop(lambda _, each, __: mean_of([entropy_of(p) for p in each])),
        lambda z: stats.entropy(special.softmax(z, axis=2), axis=2).mean(0),
    ),
    "mutual_information": Metric(
        drawn_logits(), score_by_mcbn("mutual_information"), score_by_loop(divergence),
        lambda z: stats.entropy(special.softmax(z, 2).mean(0), axis=1)
        - stats.entropy(special.softmax(z, 2), axis=2).mean(0),
    ),
    "variation_ratio": Metric(
        drawn_logits(), score_by_mcbn("variation_ratio"), score_by_loop(minority),
        lambda z: 1 - stats.mode(z.argmax(2), axis=0).count / len(z),
    ),
    "energy": Metric(
        drawn_logits(), score_by_mcbn("energy"),
        score_by_loop(lambda _, __, z: -mean_of([mp.log(mp.fsum(map(mp.exp, r))) for r in z])),
        lambda z: -special.logsumexp(z, axis=2).mean(0),
    ),
    "max_logit": Metric(
        drawn_logits(), score_by_mcbn("max_logit"),
        score_by_loop(lambda _, __, z: -mean_of([max(r) for r in z])),
        lambda z: -np.sort(z, axis=2)[..., -1].mean(0),
    ),
    # Rows are ranked by products, whose rounding is about 1e-14 in the squares.
    "kth_distance": Metric(
        neighbourhoods(), lambda q, t, k: kth_distance(*tensors(q, t), k), distances_by_loop,
        distances_by_scikit, 2e-7,
    ),
    "error_detection": Metric(
        uncertain_errors(), errors_by_mcbn,
        lambda u, w: [auroc_by_pairs(u, w), *areas_over_all_orders(u, w.astype(float))],
        lambda u, w: [metrics.roc_auc_score(w, u), *areas_of_mean_ties(u, w.astype(float))],
    ),
    "GaussianPredictive": Metric(mixtures(), moments_by_mcbn, moments_by_loop, moments_by_numpy),
    "GaussianPredictive.log_prob": Metric(
        mixtures(), joint_by_mcbn, joint_by_mpmath, joint_by_scipy, 1e-11
    ),
    "welch": Metric(
        several(), lambda a, b: welch(*tensors(a, b)), welch_by_formula,
        lambda a, b: stats.ttest_ind(a, b, equal_var=False).pvalue,
    ),
    "paired_test": Metric(
        several(), lambda a, b: significance.paired_test((a - b).tolist()), paired_by_formula,
        lambda a, b: stats.ttest_rel(a, b).pvalue,
    ),
    "point": Metric(several(), point_by_mcbn, point_by_root, point_by_scipy),
    "log_log_slope": Metric(
        powers(), slopes.log_log_slope, slope_by_sums,
        lambda x, y: stats.linregress(np.log(x), np.log(y)).slope, 1e-12,
    ),
    "holm": Metric(p_values, significance.holm, holm_by_closure, holm_by_steps),
    "Reliability.interval": Metric(
        counted, wilson_by_mcbn, wilson_by_roots, share_by_library("wilson")
    ),
    "coverage": Metric(counted, exact_by_mcbn, exact_by_roots, exact_by_beta),
}  # fmt: skip


# Losses after a temperature, with few draws, and in networks of an ensemble.


def log_probabilities(logits):
    return logits - special.logsumexp(logits, axis=1, keepdims=True)


def calibrated_by_mcbn(logits, labels):
    logs, targets = tensors(log_probabilities(logits), labels)
    return calibrated_nll(logs, targets, seed=3).numpy()


def calibrated_by(search):
    """The loss of each half at the temperature that a search finds on the other."""

    def call(logits, labels):
        logs, first = log_probabilities(logits), first_half(torch.arange(len(labels)), 3).numpy()
        losses = np.empty(len(labels))
        for half in (first, ~first):
            beta = math.exp(-search(logs[~half], labels[~half])) if (~half).any() else 1.0
            rows = log_probabilities(beta * logs[half])
            losses[half] = -rows[np.arange(half.sum()), labels[half]]
        return losses

    return call


def penalized(log_temperature, logs, labels):
    rows = log_probabilities(math.exp(-log_temperature) * logs)
    return math.fsum(-rows[np.arange(len(labels)), labels]) + log_temperature**2 / 2


def temperature_by_slope(logs, labels):
    """Roots of the slope, worked out by hand in 1/T, and the ends; the best of them."""

    def slope(log_temperature):
        beta, total = math.exp(-log_temperature), log_temperature
        for row, label in zip(logs, labels, strict=True):
            weights = [math.exp(beta * (value - max(row))) for value in row]
            mean = math.fsum(w * v for w, v in zip(weights, row, strict=True)) / math.fsum(weights)
            total += beta * (row[label] - mean)
        return total

    scan = np.linspace(math.log(1e-2), math.log(1e2), 301)
    values = [slope(point) for point in scan]
    found = [scan[0], scan[-1]]
    for left, right, low, high in zip(scan, scan[1:], values, values[1:], strict=False):
        if low < 0 <= high:
            found.append(optimize.brentq(slope, left, right, xtol=1e-13))
    return min(found, key=lambda point: penalized(point, logs, labels))


def temperature_by_scipy(logs, labels):
    scan = np.linspace(math.log(1e-2), math.log(1e2), 801)
    best = min(scan, key=lambda point: penalized(point, logs, labels))
    around = max(best - 0.02, scan[0]), min(best + 0.02, scan[-1])
    return optimize.minimize_scalar(
        penalized, bounds=around, args=(logs, labels), method="bounded", options={"xatol": 1e-9}
    ).x


@st.composite
def target_logs_of_draws(draw):
    """Log-probabilities of the targets of up to 5 examples by up to 6 draws."""
    shape = draw(st.tuples(st.integers(2, 6), st.integers(1, 5)))
    return (draw(arrays(shape, -12.0, 0.0)),)


def pseudo_values_by_loop(logs):
    """The mean of Tukey's pseudo-values, in exact fractions up to the logarithm."""
    found = []
    for column in logs.T:
        chances = [Fraction(math.exp(value)) for value in column]
        count, total = len(chances), sum(chances)
        whole = -mp.log(mp.mpf((total / count).numerator) / (total / count).denominator)
        parts = []
        for chance in chances:
            mean = (total - chance) / (count - 1)
            parts.append(-mp.log(mp.mpf(mean.numerator) / mean.denominator))
        found.append(float(count * whole - (count - 1) * mp.fsum(parts) / count))
    return found


def extrapolated_by_numpy(logs):
    count = len(logs)

    def loss(rows):
        return math.log(len(rows)) - special.logsumexp(rows, axis=0)

    others = [loss(np.delete(logs, t, axis=0)) for t in range(count)]
    return loss(logs) + (count - 1) * (loss(logs) - np.mean(others, axis=0))


@st.composite
def networks_and_a_method(draw):
    """Logits of 2 to 4 networks and of a method, for 2 to 6 examples of 3 classes."""
    networks, rows = draw(st.tuples(st.integers(2, 4), st.integers(2, 6)))
    labels = draw(hnp.arrays(np.int64, rows, elements=st.integers(0, 2)))
    return draw(arrays((networks, rows, 3))), draw(arrays((rows, 3))), labels


def summarized(draws):
    return mcbn.Categorical(outputs="logits").summarize(torch.from_numpy(draws), keep_draws=True)


def equivalent_by_mcbn(networks, method, labels):
    found = ensemble_equivalents(
        {"a": summarized(method[None])}, summarized(networks), torch.from_numpy(labels), resamples=0
    )
    return found["a"].value


def ensemble_curve(networks, labels):
    """The mean calibrated loss of all ensembles of each size; its losses have rows of their own."""

    def loss(logits):
        logs = summarized(logits).log_probabilities
        return float(calibrated_nll(logs, torch.from_numpy(labels)).mean())

    return [
        math.fsum(loss(networks[list(s)]) for s in subsets) / len(subsets)
        for size in range(1, len(networks) + 1)
        for subsets in [list(itertools.combinations(range(len(networks)), size))]
    ], loss


def equivalent_by_loop(networks, method, labels):
    curve, loss = ensemble_curve(networks, labels)
    level = loss(method[None])
    if abs(min(curve) - level) < 1e-9 or any(abs(each - level) < 1e-9 for each in curve):
        return None  # which side of a corner it is on hangs on rounding
    if curve[0] <= level:
        return 1.0
    for size in range(1, len(curve)):
        if curve[size] <= level:
            return size + (curve[size - 1] - level) / (curve[size - 1] - curve[size])
    return math.inf


def equivalent_by_roots(networks, method, labels):
    """The first root of the interpolated curve, by bisection in each piece."""
    curve, loss = ensemble_curve(networks, labels)
    level, sizes = loss(method[None]), np.arange(1, len(curve) + 1)
    if any(abs(each - level) < 1e-9 for each in curve):
        return None

    def excess(size):
        return np.interp(size, sizes, curve) - level

    if excess(1.0) <= 0:
        return 1.0
    pieces = [(a, b) for a, b in itertools.pairwise(sizes) if excess(b) <= 0]
    return optimize.brentq(excess, *pieces[0], xtol=1e-13) if pieces else math.inf


METRICS |= {
    "calibrated_nll": Metric(classes(), calibrated_by_mcbn, calibrated_by(temperature_by_slope),
                             calibrated_by(temperature_by_scipy), 1e-6),
    "extrapolated_nll": Metric(
        target_logs_of_draws(), by_mcbn(extrapolated_nll), pseudo_values_by_loop,
        extrapolated_by_numpy, 1e-11),
    "ensemble_equivalents": Metric(
        networks_and_a_method(), equivalent_by_mcbn, equivalent_by_loop, equivalent_by_roots,
        1e-6),
}  # fmt: skip

# For the scores of an evaluation: the row above that each is computed from.
MADE_FROM = {
    "accuracy": "correct", "nll": "negative_log_likelihood", "brier": "brier",
    "nll_calibrated": "calibrated_nll", "nll_extrapolated": "extrapolated_nll",
    "ensemble_equivalent": "ensemble_equivalents",
    "ece": "expected_calibration_error", "ece_equal_mass": "expected_calibration_error, mass",
    "ece_debiased": "debiased_calibration_error", "ece_classwise": "classwise_calibration_error",
    "ece_smooth": "smooth_calibration_error", "mce": "expected_calibration_error, max",
    "auroc_of_errors": "auroc", "aurc": "risk_coverage", "e_aurc": "risk_coverage",
    "augrc": "risk_coverage", "rmse": "squared_error", "pll": "GaussianPredictive.log_prob",
    "crps": "crps", "crps_moment_matched": "gaussian_crps", "coverage_90": "quantile",
    "width_90": "quantile", "pit_error": "quantile_calibration_error",
    "mutual_information": "CategoricalPredictive", "epistemic_sd": "GaussianPredictive",
    "auroc_out_of_distribution": "out_of_distribution",
    "aupr_out_of_distribution": "out_of_distribution",
    "fpr95_out_of_distribution": "out_of_distribution",
    "recall": "class_scores", "precision": "class_scores", "iou": "class_scores",
    "exact_match": "label_scores", "f1": "label_scores", "f1_micro": "label_scores",
    "f1_macro": "label_scores", "auroc": "label_scores", "auroc_micro": "label_scores",
    "auroc_macro": "label_scores", "aupr": "label_scores", "aupr_micro": "label_scores",
    "aupr_macro": "label_scores",
}  # fmt: skip


def public(module):
    return {name for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__
            and not name.startswith("_")}  # fmt: skip


def test_every_public_number_has_its_references():
    # The formulas have the names of the scores that check and call them.
    expected = {name for module in (scores, calibration, detection, mixture, formulas)
                for name in public(module)}  # fmt: skip
    expected.remove("choose_abstention")  # a rule and no number: see `test_abstention`
    # The numbers of the others, bit for bit: see `test_columns_of_real_targets_...`.
    expected.remove("forecast_scores")
    expected |= {*PREDICTIVE_SCORES, *public(neighbors_of_mcbn), *public(errors_of_mcbn)}
    # How features and values are put into rows: see `test_neighbors` and `test_error_detection`.
    expected -= {"vectors", "rows_of"}
    rows = {name.split(",")[0] for name in METRICS}
    assert expected <= rows, expected - rows
    names = {*get_args(glossary.ScoreName), *glossary.BETTER}
    assert names == set(MADE_FROM)
    assert set(MADE_FROM.values()) <= set(METRICS)


@pytest.mark.unchecked
@pytest.mark.parametrize("cases", [100, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", METRICS)
def test_it_agrees_with_both_references(name, cases):
    metric = METRICS[name]

    def check(case):
        value = metric.tested(*case)
        for reference in (metric.first, metric.second):
            expected = reference(*case)
            if value is None or expected is None:  # too small for the reference to resolve
                continue
            np.testing.assert_allclose(np.asarray(value, float), np.asarray(expected, float),
                                       rtol=TOLERANCE, atol=metric.atol)  # fmt: skip

    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    options = settings(max_examples=cases, derandomize=True, deadline=None, database=None,
                       suppress_health_check=quiet)  # fmt: skip
    options(given(metric.cases)(check))()
