"""The verbs of the command line for the results of a study."""

import pkgutil
import sys

from mcbn.cli import messages
from mcbn.cli.options.study import StudyReportOptions, StudyStatusOptions, StudyTableOptions
from mcbn.cli.study_run import study_counts
from mcbn.cli.values import names_of
from mcbn.io.atomic import write_whole
from mcbn.io.plain import to_json
from mcbn.study.results import Study, to_csv, to_markdown, to_parquet
from mcbn.study.store import Store


def status(options: StudyStatusOptions) -> None:
    """Show how many cells of a study are finished, failed and running."""
    study, store = Study.load(options.study), Store.open(options.study)
    networks = {n.key for c in study.plan.cells() for n in c.networks if not n.trained}
    trained, running = len(networks & store.keys("networks")), len(store.running())
    numbers = study_counts(study)
    if options.json:
        failures = {str(cell): error for cell, error in study.failures.items()}
        networks_done = {"networks": len(networks), "trained": trained, "running": running}
        print(to_json({"title": study.plan.title, **numbers, **networks_done,
                       "failures": failures}, indent=2))  # fmt: skip
        return
    print(f"{study.plan.title}")
    print(f"  cells     {numbers['done']} of {numbers['cells']} done, {numbers['failed']} failed, "
          f"{numbers['missing']} to do")  # fmt: skip
    print(f"  networks  {trained} of {len(networks)} trained")
    print(f"  running   {running}")
    for cell, error in study.failures.items():
        print(f"  failed    {cell}: {error}")


def table(options: StudyTableOptions) -> None:
    """Print the results of a study, or write them to a file."""
    study, out = Study.load(options.study), options.out
    if options.format == "parquet" and not options.json:
        if out is None:
            raise ValueError("expected --out FILE with --format parquet, got none; name a file")
        write_whole(out, to_parquet(study, cost=options.cost))
        return
    text = _table(study, options)
    if out is None:
        sys.stdout.write(text)
    else:
        write_whole(out, text.encode())


def _table(study: Study, options: StudyTableOptions) -> str:
    if options.json:
        return f"{to_json(study.rows(cost=options.cost), indent=2)}\n"
    to_text = to_csv if options.format == "csv" else to_markdown
    return to_text(study, cost=options.cost)


def report(options: StudyReportOptions) -> None:
    """Write the report of a study."""
    study = Study.load(options.study)
    # Imported here, since the other verbs do not need figures and torch.
    written = pkgutil.resolve_name("mcbn.report.report:Report").from_study(
        study, ignore=names_of(options.ignore)
    )
    formats = names_of(options.figures)
    path = written.write(options.out or options.study, figures=formats, pdf=options.pdf)
    messages.show_report(path, written, figures=bool(formats), json=options.json)
