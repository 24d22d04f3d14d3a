"""Groups of examples, and pictures of the extremes: their numbers, and how the page says them."""

import base64
import functools
import io
import json
import math
import re

import numpy as np
import pytest
import torch
from browser import CHROMIUM, QUIET
from PIL import Image
from playwright.sync_api import sync_playwright
from reports import ParsedPage, looked_up
from scipy import stats
from torch.testing import assert_close

import mcbn
from mcbn.evaluation.compare import Comparison, entry
from mcbn.evaluation.significance import holm, welch
from mcbn.evaluation.subgroups import MAX_GROUPS, MIN_EXAMPLES, subgroups, worst
from mcbn.report.comparison_page import ComparisonPage
from mcbn.report.gallery import galleries
from mcbn.report.report import Report

HOSTILE = '<script>alert(1)</script>"$x_"'


def forecast(examples=400, draws=4, hard=("b",), names="abcd"):
    """Groups in turn, those in `hard` with labels that have nothing to do with the forecast."""
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(examples, 3, generator=generator).double()
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    labels = tuple(names[k % len(names)] for k in range(examples))
    for place, label in enumerate(labels):
        if label in hard:
            targets[place] = int(torch.randint(3, (), generator=generator))
    noise = 0.3 * torch.randn(draws, examples, 3, generator=generator).double()
    return mcbn.Categorical().summarize(logits + noise * (draws > 1)), targets, labels


def test_the_scores_of_a_group_are_those_of_its_examples_alone():
    predictive, targets, labels = forecast()
    groups = subgroups(predictive, targets, labels, resamples=0)
    assert [group.name for group in groups] == list("abcd")
    for group in groups:
        inside = torch.tensor([label == group.name for label in labels])
        alone = mcbn.Categorical().join([predictive])
        part = type(alone)(
            alone.log_probabilities[inside], alone.expected_entropy[inside],
            alone.variance[inside], alone.variation_ratio[inside], alone.draw_count,
        )  # fmt: skip
        expected = mcbn.evaluate(part, targets[inside], resamples=0)
        assert group.size == int(inside.sum()) == 100
        for name in ("accuracy", "nll", "ece_debiased"):
            assert group.scores[name].value == pytest.approx(expected[name].value, rel=1e-12)
        information = float(part.mutual_information.mean())
        assert group.scores["mutual_information"].value == pytest.approx(information, rel=1e-12)


def test_the_order_of_the_examples_does_not_matter():
    predictive, targets, labels = forecast()
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    moved = type(predictive)(
        predictive.log_probabilities[order], predictive.expected_entropy[order],
        predictive.variance[order], predictive.variation_ratio[order], 4,
    )  # fmt: skip
    one = subgroups(predictive, targets, labels, resamples=0)
    two = subgroups(moved, targets[order], [labels[k] for k in order.tolist()], resamples=0)
    for a, b in zip(one, two, strict=True):
        assert a.p_value == pytest.approx(b.p_value, rel=1e-9)
        for name, score in a.scores.items():
            assert score.value == pytest.approx(b.scores[name].value, rel=1e-9), name


def test_the_test_is_welchs_and_corrected_by_holm():
    predictive, targets, labels = forecast()
    groups = subgroups(predictive, targets, labels, resamples=0)
    losses = -predictive.log_probabilities.gather(1, targets[:, None])[:, 0].numpy()
    inside = np.array(labels) == "c"
    expected = stats.ttest_ind(losses[inside], losses[~inside], equal_var=False).pvalue
    assert groups[2].p_value == pytest.approx(expected, rel=1e-9)
    assert [g.adjusted for g in groups] == holm([g.p_value for g in groups])


def test_a_group_whose_labels_are_noise_is_found_and_the_others_are_not():
    """Power is beyond doubt at this size; without a hard group the seed gives no false alarm."""
    predictive, targets, labels = forecast()
    groups = subgroups(predictive, targets, labels, resamples=50)
    assert worst(groups).name == "b"
    assert worst(groups).adjusted < 1e-6
    calm = subgroups(*forecast(hard=()), resamples=0)
    assert min(group.adjusted for group in calm) > 0.05


def test_small_groups_are_marked_and_not_called_the_worst():
    predictive, targets, labels = forecast(hard=("x",))
    labels = ["x" if place < MIN_EXAMPLES - 1 else label for place, label in enumerate(labels)]
    targets = targets.clone()
    targets[: MIN_EXAMPLES - 1] = predictive.log_probabilities[: MIN_EXAMPLES - 1].argmin(1)
    groups = {group.name: group for group in subgroups(predictive, targets, labels, resamples=0)}
    assert [name for name, group in groups.items() if group.is_small] == ["x"]
    assert max(groups.values(), key=lambda g: g.scores["nll"].value).name == "x"
    assert worst(list(groups.values())).name != "x"


def test_numbers_are_put_in_order_and_a_missing_value_is_a_group():
    predictive, targets, _ = forecast()
    labels = [("10", "9", "x", "")[place % 4] for place in range(400)]
    groups = subgroups(predictive, targets, labels, resamples=0)
    assert [group.name for group in groups] == ["9", "10", "(none)", "x"]


@pytest.mark.parametrize("labels", [["a"] * 399, [str(k % (MAX_GROUPS + 1)) for k in range(400)]])
def test_labels_that_are_no_groups_are_refused(labels):
    predictive, targets, _ = forecast()
    with pytest.raises(ValueError, match="at most 50 groups"):
        subgroups(predictive, targets, labels, resamples=0)


@pytest.mark.parametrize(
    ("first", "second"),
    [([1.0], [1.0, 2.0]), ([1.0, 1.0], [2.0, 2.0]), ([1.0, math.inf], [1.0, 2.0])],
)
def test_where_nothing_can_be_tested_there_is_no_p_value(first, second):
    assert math.isnan(welch(torch.tensor(first).double(), torch.tensor(second).double()))


def test_groups_of_one_example_and_a_single_group_have_scores():
    predictive, targets, labels = forecast()
    one = subgroups(predictive, targets, ["x", *labels[1:]], resamples=3)
    assert {group.name: group.size for group in one}["x"] == 1
    (whole,) = subgroups(predictive, targets, ["all"] * 400, resamples=0)
    assert math.isnan(whole.adjusted)


def test_regression_has_groups_too():
    generator = torch.Generator().manual_seed(0)
    predictive = mcbn.Gaussian(precision=1.0).summarize(torch.zeros(2, 200).double())
    targets = torch.randn(200, generator=generator).double()
    targets[::2] *= 4
    groups = subgroups(predictive, targets, ["wide", "narrow"] * 100, resamples=20)
    assert set(groups[0].scores) == {"rmse", "pll", "coverage_90"}
    assert worst(groups).name == "wide"
    rmse = groups[1].scores["rmse"].value
    assert rmse == pytest.approx(float(targets[::2].square().mean().sqrt()), rel=1e-12)


def report(draws=4, images=True):
    predictive, targets, labels = forecast(draws=draws)
    labels = [HOSTILE if label == "d" else label for label in labels]
    classes = (HOSTILE, "x", "y")
    found = entry(predictive, targets, outside={}, resamples=5, progress=False)
    generator = torch.Generator().manual_seed(0)
    shown = torch.rand(400, 3, 5, 7, generator=generator)
    pictures = galleries(shown, predictive, targets, classes) if images else ()
    groups = {HOSTILE: {"M": subgroups(predictive, targets, labels, resamples=20)}}
    return ComparisonPage(Comparison({"M": found}, targets, classes), groups=groups,
                          galleries=pictures, pictured="M")  # fmt: skip


@functools.cache
def page():
    return report().to_html()


def test_the_page_says_the_groups_and_escapes_what_others_named():
    found, text = report(), page()
    numbers, cells, tags = found.to_dict(), ParsedPage(text).cells, ParsedPage(text).tags
    keys = [key for key in cells if key.startswith("groups.")]
    assert len(keys) == 4 * (1 + 4 + 1)
    for key in keys:
        for cell in cells[key]:
            value = numbers["groups"]
            parts = key.removeprefix(f"groups.{HOSTILE}.M.").split(".", 1)
            value = looked_up(value[HOSTILE]["M"][parts[0]], parts[1])
            assert float(cell["data-value"]) == value
    assert [tag for tag, _ in tags].count("script") == 1
    assert "<script>alert" not in text
    claim = next(claim for claim in found.verdict if claim.topic == "Groups")
    assert claim.mark == "bad"
    assert "does worst on b (100 examples)" in claim.sentence
    assert "by Holm's method over the 4 groups" in claim.sentence
    assert json.dumps(numbers, allow_nan=False)
    assert not re.search(r"\bnan\b", text, flags=re.IGNORECASE)


def test_what_is_not_known_of_the_draws_is_absent():
    text = report(draws=1).to_html()
    assert not [key for key in ParsedPage(text).cells if "mutual_information" in key]
    assert [key for key in ParsedPage(page()).cells if "scores.mutual_information" in key]


def test_equal_input_gives_an_equal_page_with_pictures():
    assert report().to_html() == page()


def test_pictures_are_in_the_page_with_captions():
    tags = ParsedPage(page()).tags
    shown = [attrs for tag, attrs in tags if tag == "img"]
    assert len(shown) == 16
    assert all(attrs["src"].startswith("data:image/png;base64,") for attrs in shown)
    assert all(attrs["alt"].startswith("Test input ") for attrs in shown)
    assert "img-src data:" in next(
        attrs["content"] for tag, attrs in tags if attrs.get("http-equiv")
    )
    assert not report(images=False).to_dict()["pictures"]


def test_the_extremes_are_those_of_the_entropy():
    predictive, targets, _ = forecast()
    least, most = galleries(torch.zeros(400, 1, 2, 2), predictive, targets)
    order = predictive.entropy.argsort().tolist()
    assert [picture.index for picture in most.pictures] == order[:8]
    assert [picture.index for picture in least.pictures] == order[::-1][:8]
    for picture in (*least.pictures, *most.pictures):
        guess, truth = int(predictive.prediction[picture.index]), int(targets[picture.index])
        assert picture.caption.startswith(f"{guess} (")
        assert picture.mark == ("right" if guess == truth else "wrong")
        assert (f"true class {truth}" in picture.caption) == (guess != truth)


def pixels(picture):
    raw = base64.b64decode(picture.uri.partition(",")[2])
    return torch.from_numpy(np.array(Image.open(io.BytesIO(raw))))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["bytes", "unit", "normalised"])
def test_a_picture_is_the_input(channels, kind):
    predictive, targets, _ = forecast(examples=20)
    generator = torch.Generator().manual_seed(0)
    whole = torch.randint(256, (20, channels, 4, 6), generator=generator).to(torch.uint8)
    whole[0, 0, 0, :2] = torch.tensor([0, 255])
    images = {"bytes": whole, "unit": whole / 255, "normalised": (whole / 255 - 0.4) / 0.2}[kind]
    for gallery in galleries(images, predictive, targets):
        for picture in gallery.pictures:
            expected = whole[picture.index].permute(1, 2, 0)
            got = pixels(picture).reshape(expected.shape)
            assert_close(got, expected, rtol=0, atol=0)


def test_large_pictures_are_made_smaller():
    predictive, targets, _ = forecast(examples=20)
    (gallery, _) = galleries(torch.zeros(20, 3, 500, 300), predictive, targets, count=1)
    assert max(pixels(gallery.pictures[0]).shape) == 96


@pytest.mark.parametrize("shape", [(20, 2, 4, 4), (19, 1, 4, 4), (20, 4, 4), (20, 1, 0, 4)])
def test_what_is_no_picture_is_refused(shape):
    predictive, targets, _ = forecast(examples=20)
    with pytest.raises(ValueError, match="expected 20 images"):
        galleries(torch.zeros(shape), predictive, targets)


def test_pictures_that_are_not_finite_are_refused():
    predictive, targets, _ = forecast(examples=20)
    with pytest.raises(ValueError, match="finite"):
        galleries(torch.full((20, 1, 4, 4), torch.nan), predictive, targets)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_pictures_are_seen_and_nothing_is_asked_for(tmp_path):
    address = Report(report()).write(tmp_path).as_uri()
    asked, said = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        shown = browser.new_page(viewport={"width": 360, "height": 800})
        shown.on("console", lambda message: said.append(message.text))
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(address)
        widths = shown.evaluate("[...document.images].map(i => [i.naturalWidth, i.width])")
        wide = shown.evaluate("document.documentElement.scrollWidth")
        browser.close()
    assert len(widths) == 16
    assert all(natural == 7 and seen > 60 for natural, seen in widths)
    assert wide <= 360
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [address]
