"""Groups of examples on the report page, and the gallery of the most and least certain inputs."""

import base64
import functools
import io
import json
import re

import numpy as np
import pytest
import torch
from browser import CHROMIUM, browser  # noqa: F401 - a fixture
from forecasters import grouped
from PIL import Image
from reports import ParsedPage, looked_up
from torch.testing import assert_close

from mcbn.evaluation.compare import entry
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.evaluate import ScoredRows
from mcbn.evaluation.subgroups import subgroups
from mcbn.report.comparison_content import ComparisonContent
from mcbn.report.gallery import galleries
from mcbn.report.report import Report

HOSTILE = '<script>alert(1)</script>"$x_"'


def report(draws=4, images=True):
    predictive, targets, labels = grouped(draws=draws)
    labels = [HOSTILE if label == "d" else label for label in labels]
    classes = (HOSTILE, "x", "y")
    scored = entry(ScoredRows(predictive, targets), outside={}, resamples=5, progress=False)
    generator = torch.Generator().manual_seed(0)
    shown = torch.rand(400, 3, 5, 7, generator=generator)
    pictures = galleries(shown, predictive, targets, classes) if images else ()
    groups = {HOSTILE: {"M": subgroups(predictive, targets, labels, resamples=20)}}
    return Report(ComparisonContent(Comparison({"M": scored}, targets, classes), groups=groups,
                          galleries=pictures, pictured="M"))  # fmt: skip


@functools.cache
def page():
    return report().to_html()


def test_the_page_shows_the_groups_and_escapes_their_names():
    made, text = report(), page()
    numbers, cells, tags = made.to_dict(), ParsedPage(text).cells, ParsedPage(text).tags
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
    claim = next(claim for claim in made.verdict if claim.topic == "Groups")
    assert claim.mark == "bad"
    assert "does worst on b (100 examples)" in claim.sentence
    assert "by Holm's method over the 4 groups" in claim.sentence
    assert json.dumps(numbers, allow_nan=False)
    assert not re.search(r"\bnan\b", text, flags=re.IGNORECASE)


def test_mutual_information_is_absent_where_draws_are_unknown():
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
    predictive, targets, _ = grouped()
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
    predictive, targets, _ = grouped(examples=20)
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
    predictive, targets, _ = grouped(examples=20)
    (gallery, _) = galleries(torch.zeros(20, 3, 500, 300), predictive, targets, count=1)
    assert max(pixels(gallery.pictures[0]).shape) == 96


@pytest.mark.parametrize("shape", [(20, 2, 4, 4), (19, 1, 4, 4), (20, 4, 4), (20, 1, 0, 4)])
def test_inputs_that_are_no_images_are_refused(shape):
    predictive, targets, _ = grouped(examples=20)
    with pytest.raises(ValueError, match="expected 20 images"):
        galleries(torch.zeros(shape), predictive, targets)


def test_pictures_that_are_not_finite_are_refused():
    predictive, targets, _ = grouped(examples=20)
    with pytest.raises(ValueError, match="finite"):
        galleries(torch.full((20, 1, 4, 4), torch.nan), predictive, targets)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_pictures_are_displayed_without_any_request(tmp_path, browser):  # noqa: F811
    address = report().write(tmp_path).as_uri()
    requests, messages = [], []
    with browser.new_page(viewport={"width": 360, "height": 800}) as shown:
        shown.on("console", lambda message: messages.append(message.text))
        shown.on("request", lambda request: requests.append(request.url))
        shown.goto(address)
        widths = shown.evaluate("[...document.images].map(i => [i.naturalWidth, i.width])")
        wide = shown.evaluate("document.documentElement.scrollWidth")
    assert len(widths) == 16
    assert all(natural == 7 and seen > 60 for natural, seen in widths)
    assert wide <= 360
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [address]
