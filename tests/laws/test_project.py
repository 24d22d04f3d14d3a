"""The project's own files agree: packaging, locks, the page of dependencies, commands on pages."""

import re
import tomllib
from pathlib import Path

import pytest
from source import MODULES, PACKAGE

ROOT = PACKAGE.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT, GROUPS = PYPROJECT["project"], PYPROJECT["dependency-groups"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKS = sorted((ROOT / "tools" / "locks").glob("*.lock"))
DEPENDENCIES = (ROOT / "docs" / "dependencies.md").read_text("utf-8")


def names(requirements):
    """The packages that a list of requirements names itself, without the groups it includes."""
    return {re.match(r"[\w.-]+", each).group().lower() for each in requirements
            if isinstance(each, str)}  # fmt: skip


def rows(heading):
    """The cells of the table under a heading of docs/dependencies.md."""
    section = DEPENDENCIES.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def by_name(heading):
    """The packages that the table under a heading lists for each extra or group."""
    listed = {}
    for name, packages, _ in rows(heading):
        listed.setdefault(name, set()).update(packages.split(", "))
    return listed


def test_extras_are_for_users():
    assert set(EXTRAS) == {
        "dask", "laplace", "onnx", "pandas", "parquet", "ray", "serve", "timm", "xarray"
    }  # fmt: skip
    unused = PYPROJECT["tool"]["deptry"]["optional_dependencies_dev_groups"]
    assert set(unused) == set(EXTRAS)


def test_every_extra_that_a_message_names_exists():
    named = {
        extra
        for path in MODULES
        for extra in re.findall(r"mcbn\[(\w+)\]|extra=\"(\w+)\"", path.read_text("utf-8"))
        for extra in extra
        if extra
    }
    assert named
    assert named <= set(EXTRAS)


def test_the_page_lists_every_runtime_dependency():
    assert {package for package, _ in rows("Runtime")} == names(PROJECT["dependencies"])


def test_the_page_lists_every_extra():
    assert by_name("Extras") == {extra: names(needed) for extra, needed in EXTRAS.items()}


def test_the_page_lists_every_development_dependency_once():
    listed = by_name("Development")
    for group, packages in listed.items():
        assert packages <= names(GROUPS[group]), group
    packages = [package for _, cell, _ in rows("Development") for package in cell.split(", ")]
    assert sorted(packages) == sorted(set().union(*map(names, GROUPS.values())))


def test_every_sentence_of_the_page_is_one():
    for *_, why in [*rows("Runtime"), *rows("Extras"), *rows("Development")]:
        assert re.fullmatch(r"[A-Z][^.]*\.", why), why


def test_every_lock_has_hashes_and_no_host():
    assert [lock.stem for lock in LOCKS] == ["bench", "compat", "demo", "dev"]
    for lock in LOCKS:
        text = lock.read_text("utf-8")
        assert "://" not in text, lock
        assert re.findall(r"^[\w.-]+==\S+.*(?<!\\)$", text, flags=re.MULTILINE) == [], lock
        assert text.count("--hash=sha256:") >= text.count("=="), lock


def test_locks_agree_on_what_they_share():
    pins = {lock.stem: set(re.findall(r"^[\w.-]+==.*$", lock.read_text("utf-8"), re.MULTILINE))
            for lock in LOCKS}  # fmt: skip
    assert pins["demo"] <= pins["dev"]
    for package, other in (
        ("torch", "compat"), ("torchvision", "compat"), ("timm", "compat"),
        ("transformers", "compat"), ("torch", "bench"), ("torchcrepe", "bench"), ("ray", "bench"),
    ):  # fmt: skip
        in_dev, in_other = (
            {pin for pin in pins[name] if pin.startswith(f"{package}==")} for name in ("dev", other)
        )
        assert in_dev == in_other != set()


def test_the_demo_installs_only_what_the_package_needs():
    demo = (ROOT / "tools" / "locks" / "demo.lock").read_text("utf-8")
    pinned = set(re.findall(r"^([\w.-]+)==", demo, flags=re.MULTILINE))
    assert names(PROJECT["dependencies"]) - pinned == {"torchvision"}
    assert pinned.isdisjoint({"triton", "pytest", "ruff", "ray"})


def targets(makefile):
    """The targets of a Makefile, and those that its help lists."""
    text = (ROOT / makefile).read_text("utf-8")
    found = re.findall(r"^([a-z][a-z-]*):(?!=)(.*)$", text, flags=re.MULTILINE)
    return {name for name, _ in found}, {name for name, rest in found if "  ## " in rest}


def test_the_root_has_few_targets_and_explains_each():
    there, explained = targets("Makefile")
    assert there == explained
    assert there == {"help", "demo", "test", "integration", "check", "docs", "bench", "clean"}


PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", ".ci/run")]
PAGES += [*(ROOT / "docs").glob("*.md"), *(ROOT / ".github").rglob("*.yml")]
PAGES += [*(ROOT / "experiments").rglob("*.md"), ROOT / "docs" / "conf.py"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_make_on_a_page_exists(page):
    command = r"(?:`|^|run: )make( -C tools)? ([a-z][a-z-]*)"
    for in_tools, target in re.findall(command, page.read_text("utf-8"), flags=re.MULTILINE):
        there, _ = targets("tools/Makefile" if in_tools else "Makefile")
        assert target in there, f"{page.name}: make{in_tools} {target}"


def test_ci_runs_the_commands_of_the_readme():
    script, workflow = (
        (ROOT / name).read_text("utf-8") for name in (".ci/run", ".github/workflows/ci.yml")
    )
    assert script.splitlines()[-1] == "make check"
    assert "run: make check" in workflow
    assert "secrets" not in workflow


def test_the_core_tests_and_storage_modules_of_the_makefile_exist():
    text = (ROOT / "tools" / "Makefile").read_text("utf-8").replace("\\\n", "")
    for variable, folder in {"CORE": "tests", "STORAGE": "mcbn"}.items():
        (value,) = re.findall(rf"^{variable} := (.*)$", text, flags=re.MULTILINE)
        assert len(value.split()) >= 6
        for name in value.split():
            path = ROOT / folder / name
            assert path.is_dir() or path.with_suffix(".py").is_file(), name


def test_the_modules_and_tests_that_mutmut_is_given_exist():
    settings = PYPROJECT["tool"]["mutmut"]
    for name in (*settings["only_mutate"], *settings["pytest_add_cli_args_test_selection"]):
        assert (ROOT / name).is_file(), name


def test_the_package_has_no_assert_and_unpickles_nothing():
    banned = re.compile(r"^\s*assert |\bpickle\b|allow_pickle=True|weights_only=False|yaml\.load\(")
    for path in MODULES:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            assert not banned.search(line), f"{path.relative_to(ROOT)}:{number}: {line}"


def test_the_version_is_the_same_everywhere():
    version = PROJECT["version"]
    init = (PACKAGE / "__init__.py").read_text("utf-8")
    citation = (Path(ROOT) / "CITATION.cff").read_text("utf-8")
    assert f'__version__ = "{version}"' in init
    assert f"\nversion: {version}\n" in citation
