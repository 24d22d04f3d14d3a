"""The schema of `report.json`: every kind of report keeps to it, and what breaks it is found."""

import copy
import json
from importlib import resources

import jsonschema
import pytest
import regression_reports
import reports
from synthetic_studies import classification_study

from mcbn.report.page import SCHEMA
from mcbn.report.report import Report

RULES = json.loads(resources.files("mcbn.report").joinpath("schema.json").read_text("utf-8"))
MADE = {
    "comparison": reports.report(),
    "one method": Report.from_comparison(
        reports.comparison(ood=False, names=("Plain",), resamples=0)
    ),
    "real values": regression_reports.report(),
    "study": Report.from_study(classification_study(seeds=(0, 1))),
}


def validated(numbers):
    jsonschema.Draft202012Validator(RULES).validate(numbers)


def test_the_schema_itself_is_valid_and_of_this_version():
    jsonschema.Draft202012Validator.check_schema(RULES)
    assert RULES["properties"]["schema"]["const"] == SCHEMA


@pytest.mark.parametrize("report", MADE.values(), ids=MADE)
def test_every_report_keeps_to_the_schema(report, tmp_path):
    path = report.write(tmp_path).with_suffix(".json")
    validated(json.loads(path.read_text("utf-8")))


@pytest.mark.parametrize("report", MADE.values(), ids=MADE)
def test_no_key_is_missing_from_the_schema(report):
    """A key that is added is documented: in the common part, or in that of its kind."""
    numbers = report.to_dict()
    kind = next(each for each in RULES["oneOf"]
                if each["properties"]["kind"]["const"] == numbers["kind"])  # fmt: skip
    documented = {*RULES["properties"], *kind["properties"], "maps", "decay"}
    assert set(numbers) <= documented


BREAKS = {
    "another version": lambda each: each.update(schema=2),
    "no headline": lambda each: each.update(headline=""),
    "another kind": lambda each: each.update(kind="real values"),
    "an unknown mark": lambda each: each["verdict"][0].update(mark="fine"),
    "a claim without its code": lambda each: each["verdict"][0].update(code=""),
    "a check without its status": lambda each: each["checks"][0].pop("status"),
    "a number as text": lambda each: each["simultaneous"]["MCBN"].update(value="0.1"),
    "an unknown state": lambda each: each["calibration"]["MCBN"].update(state="fine"),
    "a missing section": lambda each: each.pop("drift"),
}


@pytest.mark.parametrize("change", BREAKS.values(), ids=BREAKS)
def test_what_breaks_the_schema_is_found(change):
    numbers = copy.deepcopy(MADE["comparison"].to_dict())
    validated(numbers)
    change(numbers)
    with pytest.raises(jsonschema.ValidationError):
        validated(numbers)
