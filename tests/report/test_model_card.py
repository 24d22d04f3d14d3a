"""Model cards: tools read the scores back, and names are shown literally."""

import math
import re
from html.parser import HTMLParser

import pytest
import torch
import yaml
from reports import comparison

import mcbn
from mcbn.evaluation import glossary
from mcbn.evaluation.comparison import Comparison
from mcbn.report.model_card import to_model_card

NASTY = 'a|b `c` <img src=x onerror=alert(1)> [d](e) *f* _g_ $h$ \\ & \n---\n"#: {i}, - j\t'
# No method of the comparison is an ensemble.
SHOWN = [name for name in glossary.HEADLINE if name != "ensemble_equivalent"]


def evaluation(resamples=20, right=False):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 60, 3, generator=generator, dtype=torch.float64)
    predictive = mcbn.Categorical().summarize(logits)
    targets = predictive.prediction if right else torch.randint(3, (60,), generator=generator)
    return mcbn.evaluate(predictive, targets, resamples=resamples, progress=False)


def regression():
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(5, 40, 1, generator=generator, dtype=torch.float64)
    predictive = mcbn.Gaussian(precision=1.0).summarize(means)
    return mcbn.evaluate(predictive, means[0], resamples=20, progress=False)


def read(card):
    """The metadata and the Markdown of a card."""
    _, head, text = re.split(r"^---$", card, maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(head), text


def result(card):
    (model,) = read(card)[0]["model-index"]
    (entry,) = model["results"]
    return entry


def table(card):
    """Cells of the table by row, cut at the bars that Markdown cuts at."""
    lines = [line for line in read(card)[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_every_score_that_matters_comes_back_with_its_interval():
    compared = comparison()
    metrics = result(to_model_card(compared, name="net", data="digits"))["metrics"]
    assert len(metrics) == 3 * len(SHOWN)
    for metric in metrics:
        score = compared.entries[metric["args"]["method"]].evaluation[metric["type"]]
        assert metric["value"] == score.value
        assert (metric["args"]["low"], metric["args"]["high"]) == (score.low, score.high)
        assert metric["args"]["level"] == 0.95
        assert metric["name"] == f"{glossary.label(metric['type'])} ({metric['args']['method']})"
    assert {m["args"]["draws"] for m in metrics if m["args"]["method"] == "MCBN"} == {8}


def test_the_table_says_the_same():
    compared = comparison()
    heading, dashes, *rows = table(to_model_card(compared, name="net", data="digits"))
    assert [len(line) for line in (dashes, *rows)] == [len(heading)] * 4
    assert [row[0] for row in rows] == list(compared.entries)
    column = heading.index("NLL ↓")
    for row in rows:
        score = compared.entries[row[0]].evaluation["nll"]
        numbers = [float(n) for n in re.findall(r"[\d.]+", row[column])]
        assert numbers == pytest.approx([score.value, score.low, score.high], abs=5e-5)
    accuracy = rows[0][heading.index("Accuracy ↑")]
    value = 100 * compared.entries["Plain"].evaluation["accuracy"].value
    assert accuracy.startswith(f"{value:.1f}% [")


def test_another_tool_reads_the_card():
    cards = pytest.importorskip("huggingface_hub.repocard")
    compared = comparison()
    card = cards.ModelCard(
        to_model_card(compared, name="net", data="digits", task="tabular", split="val")
    )
    assert card.data.model_name == "net"
    assert len(card.data.eval_results) == 3 * len(SHOWN)
    for read_back in card.data.eval_results:
        assert (read_back.task_type, read_back.dataset_name, read_back.dataset_split) == (
            "tabular", "digits", "val")  # fmt: skip
        method = read_back.metric_args["method"]
        score = compared.entries[method].evaluation[read_back.metric_type]
        assert read_back.metric_value == score.value
    assert card.text.lstrip().startswith("## Uncertainty")


def test_names_stay_what_they_are():
    card = to_model_card({NASTY: evaluation()}, name=NASTY, data=NASTY, task=NASTY, split=NASTY)
    metadata, text = read(card)
    assert metadata["model-index"][0]["name"] == NASTY
    assert result(card)["dataset"] == {"name": NASTY, "type": NASTY, "split": NASTY}
    assert result(card)["task"] == {"type": NASTY}
    assert {m["args"]["method"] for m in result(card)["metrics"]} == {NASTY}
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)
    parser.feed(text)
    assert tags == []
    rows = table(card)
    assert [len(row) for row in rows] == [len(rows[0])] * 3
    # No sign of Markdown stands unescaped in the name's cell.
    assert not re.search(r"(?<!\\)[`*_\[\]|~#!$]", rows[2][0].replace(r"\\", ""))
    assert "\n---" not in text


def test_another_tool_reads_a_card_of_such_names():
    cards = pytest.importorskip("huggingface_hub.repocard")
    card = cards.ModelCard(to_model_card({NASTY: evaluation()}, name=NASTY, data=NASTY))
    assert card.data.model_name == NASTY
    assert card.data.eval_results[0].dataset_name == NASTY


def test_without_resamples_there_are_no_intervals():
    card = to_model_card({"MCBN": evaluation(resamples=0)}, name="net", data="digits")
    assert all(m["args"] == {"method": "MCBN", "draws": 5} for m in result(card)["metrics"])
    assert "[" not in read(card)[1]
    assert "bootstrap" not in card


def test_what_is_not_defined_is_a_dash_and_no_metadata():
    # Without an error, the AUROC of errors is not defined.
    card = to_model_card({"MCBN": evaluation(right=True)}, name="net", data="digits")
    assert "auroc_of_errors" not in {m["type"] for m in result(card)["metrics"]}
    rows = table(card)
    assert rows[2][rows[0].index("AUROC of errors ↑")] == "–"  # noqa: RUF001


def test_real_targets_have_a_card_too():
    scored = regression()
    card = to_model_card({"MCBN": scored}, name="net", data="yacht", task="tabular-regression")
    values = {m["type"]: m["value"] for m in result(card)["metrics"]}
    assert {"rmse", "pll", "crps", "coverage_90"} <= values.keys()
    assert values["pll"] == scored["pll"].value
    assert "Coverage at 90%" in table(card)[0]


def test_the_same_numbers_are_the_same_bytes():
    first, second = (to_model_card({"a": evaluation()}, name="n", data="d") for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    "evaluations",
    [
        {},
        Comparison({}, torch.zeros(0), ()),
        {"a": evaluation(), "b": regression()},
    ],
    ids=["none", "empty comparison", "other examples"],
)
def test_methods_that_cannot_be_compared_are_refused(evaluations):
    with pytest.raises(ValueError, match="expected evaluations of the same examples at one level"):
        to_model_card(evaluations, name="net", data="digits")


def test_the_metrics_of_an_evaluation_are_its_scores_and_ends():
    scored = evaluation(right=True)
    metrics = scored.to_metrics()
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())
    assert metrics["nll"] == scored["nll"].value
    assert (metrics["nll_low"], metrics["nll_high"]) == (scored["nll"].low, scored["nll"].high)
    assert {"auroc_of_errors", "auroc_of_errors_low"}.isdisjoint(metrics)
    assert len(metrics) == 3 * (len(scored) - 1)
    assert set(evaluation(resamples=0).to_metrics()) == set(scored)
