"""A report of regression: one self-contained page and the same numbers as JSON."""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from mcbn.evaluation import glossary
from mcbn.evaluation.compare import interval_dicts, paired
from mcbn.evaluation.evaluate import Evaluation, evaluate
from mcbn.evaluation.subgroups import Subgroup, group_dicts
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive, Moments
from mcbn.predictive.predictions import Predictions
from mcbn.recalibration.apply import Held, held_dicts
from mcbn.report import page, panels, tables
from mcbn.report.claims import Claim, group_claim, with_span
from mcbn.report.panels import Group

R = TypeVar("R", bound=GaussianPredictive | Moments)
NOMINAL = 0.9  # of the intervals whose coverage is scored


@dataclass(frozen=True, eq=False)
class RegressionReport:
    """What a report of regression says; equal input gives an equal page to the last byte.

    Attributes:
        title: of the page.
        predictions: of the same examples by each method, the baseline first.
        evaluations: their scores, by method.
        provenance: what was measured and how to repeat it: plain text by label.
        groups: scores of groups of examples, by column and method.
        sets: how often intervals of one level held the target, if held-out data were given.
    """

    title: str
    predictions: Mapping[str, Predictions]
    evaluations: Mapping[str, Evaluation]
    provenance: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, tuple[Subgroup, ...]]] = field(default_factory=dict)
    sets: tuple[Held, ...] = ()

    @property
    def baseline(self) -> str:
        """Name of the method that differences are taken from."""
        return next(iter(self.evaluations))

    @property
    def verdict(self) -> tuple[Claim, ...]:
        """Plain sentences computed from the numbers."""
        found = [_coverage(self.baseline, self.evaluations[self.baseline])]
        if len(self.evaluations) > 1:
            found.append(_best(self.evaluations))
        for column, methods in self.groups.items():
            found.append(group_claim(self.baseline, column, methods[self.baseline]))
        return tuple(found)

    @property
    def epistemic_shares(self) -> dict[str, float]:
        """Mean share of the variance that comes from the draws; NaN where it is not known."""
        shares = {}
        for name, found in self.predictions.items():
            known = _of_reals(found.predictive)
            part, whole = known.epistemic_variance, known.variance
            shares[name] = math.nan if part is None else float((part / whole).mean())
        return shares

    def to_dict(self) -> dict[str, Any]:
        """Every number of the page, with None for what is not defined."""
        shares = self.epistemic_shares
        plain: dict[str, Any] = page.plain({
            "title": self.title,
            "verdict": [asdict(claim) for claim in self.verdict],
            "provenance": dict(self.provenance),
            "comparison": {
                "baseline": self.baseline,
                "methods": {
                    name: {
                        **found.to_dict(),
                        "draws": found.draw_count or None,
                        "epistemic_share": shares[name],
                    }
                    for name, found in self.evaluations.items()
                },
                "differences": {
                    name: interval_dicts(found) for name, found in paired(self.evaluations).items()
                },
            },
            "figures": page.numbers_of(self._groups()),
            "groups": group_dicts(self.groups),
            "sets": held_dicts(self.sets),
        })  # fmt: skip
        return plain

    def to_html(self) -> str:
        """The page: no request leaves it, and without scripts it says the same."""
        first = self.evaluations[self.baseline]
        return page.filled(
            "regression_report.html",
            title=self.title,
            report=self,
            first=first,
            shares={name: value for name, value in self.epistemic_shares.items()
                    if not math.isnan(value)},
            groups=page.drawn(self._groups()),
            headline=tables.headline(self.evaluations),
            differences=tables.differences(self.evaluations),
            all_scores=tables.all_scores(self.evaluations),
            group_tables=[tables.subgroups(name, found) for name, found in self.groups.items()],
            sets=tables.held_targets(self.sets, "target units") if self.sets else None,
            known=[name for name in glossary.SCORES if name in first],
        )  # fmt: skip

    def write(self, directory: str | os.PathLike[str]) -> Path:
        """Write `report.html` and `report.json`, each whole or not at all.

        Returns:
            The path of the page.
        """
        return page.write(directory, page=self.to_html(), numbers=self.to_dict())

    def _groups(self) -> dict[str, list[Group]]:
        transforms = {
            name: _of_reals(found.scored).cdf(found.known_targets).flatten().cpu().numpy()
            for name, found in self.predictions.items()
        }
        level = self.evaluations[self.baseline].level
        return {
            "pit": [panels.pit_group(transforms, level=level)],
            "quantiles": [panels.quantile_group(transforms, level=level)],
            "groups": [
                panels.subgroup_group(column, methods) for column, methods in self.groups.items()
            ],
        }


def evaluation_of(found: Predictions, *, resamples: int = 1000) -> Evaluation:
    """Scores of predictions, with the number of draws behind them also where only moments are."""
    evaluation = evaluate(_of_reals(found.scored), found.known_targets, resamples=resamples)
    return replace(evaluation, draw_count=found.predictive.draw_count)


def _of_reals(predictive: CategoricalPredictive | R) -> R:
    if isinstance(predictive, CategoricalPredictive):
        raise ValueError("expected predictions of real values, got classes; write a Report of them")
    return predictive


def _coverage(name: str, evaluation: Evaluation) -> Claim:
    score = evaluation["coverage_90"]
    percent = f"{100 * score.value:.1f} %"
    span = f"[{100 * score.low:.1f}, {100 * score.high:.1f}]"
    text = f"The central {100 * NOMINAL:.0f} % intervals of {name} hold {percent} {span} of values"
    error = f"its PIT error is {with_span(evaluation['pit_error'])}."
    if score.high < NOMINAL:
        return Claim("Calibration", "bad", f"{text}: it is over-confident; {error}")
    if score.low > NOMINAL:
        return Claim("Calibration", "bad", f"{text}: it is under-confident; {error}")
    known = not math.isnan(score.low)
    return Claim(
        "Calibration", "good" if known else "uncertain", f"{text}, as they should; {error}"
        if known else f"{text.replace(' [nan, nan]', '')}; {error}",
    )  # fmt: skip


def _best(evaluations: Mapping[str, Evaluation]) -> Claim:
    baseline = next(iter(evaluations))
    values = {name: found["pll"].value for name, found in evaluations.items()}
    best = max(values, key=lambda name: values[name])
    rest = {name: value for name, value in values.items() if name != baseline}
    rival = best if best != baseline else max(rest, key=lambda name: rest[name])
    gain = paired(evaluations)[rival]["pll"]
    text = f"{best} has the highest PLL, {with_span(evaluations[best]['pll'])}: {rival} less "
    text += f"{baseline} is {with_span(gain, 4)} nats"
    if gain.low > 0:
        return Claim("Best method", "good", f"{text}, which is beyond chance.")
    if gain.high < 0:
        return Claim("Best method", "bad", f"{text}, so no method improves on {baseline}.")
    return Claim("Best method", "uncertain", f"{text}, which chance may explain.")
