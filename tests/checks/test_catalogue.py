"""Codes of checks: each is spoken and listed once, and one that is ignored says nothing."""

import ast
import re

import pytest
from check_pages import DOCS, OVERVIEW, overview, page
from reports import comparison
from source import MODULES, PACKAGE

import mcbn
from mcbn import validation
from mcbn.checks.catalogue import CHECKS, CODES, check_all
from mcbn.checks.check import Check
from mcbn.checks.claim import Claim
from mcbn.checks.codes import KNOWN, require_codes
from mcbn.checks.networks import OF_NETWORKS
from mcbn.checks.subject import Subject
from mcbn.cli.verbs import VERBS

CODE = re.compile(r"MCBN\d{3}")
CATALOGUE = {*(PACKAGE / "checks").glob("*.py")}
ABOVE = ("report", "plot", "cli")  # packages that show what the checks say


def constants(path):
    """The texts of a module that are code, without docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def test_codes_and_names_are_unique_and_plain():
    every = [*CHECKS, *OF_NETWORKS]
    assert len({each.code for each in every}) == len(every) == len(CODES)
    assert len({each.name for each in every}) == len(every)
    assert list(CODES) == sorted(CODES)
    for check in every:
        assert CODE.fullmatch(check.code)
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", check.name)
        assert check.code[4] == ("0" if check in CHECKS else "1")


@pytest.mark.parametrize("check", CODES.values(), ids=CODES)
def test_every_check_says_what_it_does(check):
    for text in (check.looks_at, check.threshold, check.source, check.remedy):
        assert text[0].isupper() or text[0].isdigit()
        assert text.endswith(".")
        assert "  " not in text
    assert (check.judge is not None) == (check in CHECKS)


def test_names_and_options_in_remedies_exist():
    every = " ".join(
        text for each in CODES.values() for text in (each.remedy, each.looks_at, each.source)
    )
    names = set(re.findall(r"\bmcbn\.(\w+)", every))
    assert {"Augmented", "choose_batch_size"} <= names <= set(mcbn.__all__)
    known = {f"--{name}" for name in VERBS["report"].declared()}
    assert {"--recalibrate", "--group"} <= set(re.findall(r"--[a-z-]+", every)) <= known


def test_every_judging_module_is_in_the_catalogue():
    made = {path.stem for path in CATALOGUE if "\nCHECK = Check(" in path.read_text("utf-8")}
    assert len(made) == len(CHECKS)


def test_every_code_that_the_package_speaks_is_listed_and_the_other_way_round():
    spoken, below = set(), set()
    for path in set(MODULES) - CATALOGUE:
        codes = {code for text in constants(path) for code in CODE.findall(text)}
        spoken |= codes
        if path.relative_to(PACKAGE).parts[0] not in ABOVE:
            below |= codes
    assert spoken <= set(CODES)
    of_networks = {check.code for check in OF_NETWORKS}
    assert of_networks <= below
    # These say what a bank, draws and a fit show as well.
    assert below - of_networks == {"MCBN001", "MCBN010", "MCBN022"}


def test_every_warning_of_the_bank_and_of_the_network_in_it_has_a_code():
    calls = 0
    for path in [*(PACKAGE / "bank").glob("*.py"), PACKAGE / "network" / "conduct.py"]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "validation.warn":
                assert "code" in {each.arg for each in node.keywords}, ast.unparse(node)
                calls += 1
    assert calls >= 6


@pytest.mark.parametrize("message", ["it is so", "it is so (really)", "it (MCBN12) is", ""])
def test_a_message_and_its_code_are_told_apart(message):
    assert validation.uncoded(message) == (message, "")
    assert validation.coded(message, "") == message
    assert validation.coded(message, "MCBN004").endswith("(MCBN004)")
    assert validation.uncoded(validation.coded(message, "MCBN004")) == (message, "MCBN004")


def test_the_pages_say_what_the_catalogue_says():
    # After a change: PYTHONPATH=. python tests/helpers/check_pages.py
    assert {path.stem for path in (DOCS / "checks").glob("*.md")} == set(CODES)
    for code, check in CODES.items():
        assert (DOCS / "checks" / f"{code}.md").read_text("utf-8") == page(check), code
    text = OVERVIEW.read_text("utf-8")
    assert text == overview(text)
    assert re.findall(r"^\| \[(MCBN\d{3})\]", text, flags=re.MULTILINE) == list(CODES)


def test_what_is_ignored_is_neither_said_nor_counted():
    subject = Subject(comparison=comparison(scale=3.0))
    every = check_all(subject)
    assert "MCBN002" in {claim.code for claim in every.claims if claim.mark == "bad"}
    fewer = check_all(subject, ignore=["MCBN002"])
    assert fewer.ignored == ("MCBN002",)
    assert "MCBN002" not in {each["code"] for each in fewer.to_dict()}
    assert len(fewer.results) == len(every.results) - 1
    assert len(fewer.of("issue")) == len(every.of("issue")) - 1
    assert list(fewer.claims) == [claim for claim in every.claims if claim.code != "MCBN002"]


def test_every_check_is_told_in_the_numbers():
    numbers = check_all(Subject(comparison=comparison())).to_dict()
    assert [each["code"] for each in numbers] == [check.code for check in CHECKS]
    for each in numbers:
        statuses = [claim["status"] for claim in each["claims"]]
        assert (each["status"] == "not applicable") == (not statuses)
        assert not statuses or each["status"] in statuses
        assert all(bool(claim["remedy"]) == (claim["status"] != "passed")
                   for claim in each["claims"])  # fmt: skip


def test_nothing_is_said_of_nothing():
    assert check_all(Subject()).claims == ()


def test_unknown_codes_are_refused():
    with pytest.raises(ValueError, match=r"expected codes of checks, such as MCBN001, got \['X'\]"):
        check_all(Subject(), ignore=["MCBN004", "X"])
    assert tuple(CODES) == KNOWN
    require_codes(["MCBN104"])  # of a network, which a file of options may hold for both


def test_the_most_pressing_claim_is_the_status():
    def judged(*marks):
        claims = [Claim("topic", mark, "It is so.") for mark in marks]
        return Check("MCBN999", "n", "", "", "", "Do it.", lambda _: claims)(Subject())

    assert judged().status == "not applicable"
    assert judged("good", "uncertain", "bad").status == "issue"
    assert judged("good", "uncertain").status == "tip"
    assert judged("good").status == "passed"
    assert [claim.remedy for claim in judged("good", "bad").claims] == ["", "Do it."]
