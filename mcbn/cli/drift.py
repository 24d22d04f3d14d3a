"""The verb of the command line that tests data for drift."""

import sys

from mcbn.bank.bank import Bank
from mcbn.cli import messages
from mcbn.cli.network import load_said, read_examples
from mcbn.cli.options.network import DriftOptions
from mcbn.drift.drift_test import drift_test
from mcbn.io.plain import to_json


def drift(options: DriftOptions) -> None:
    """Test whether data are drawn from what a bank was drawn from; exit 1 if there is drift."""
    bank = Bank.load(options.bank)
    examples = read_examples(options, options.data, part="test")
    size = round(bank.size) if options.batch_size is None else options.batch_size
    found = drift_test(
        load_said(options.network), bank, examples.disjoint_batches(size, seed=options.seed),
        alpha=options.alpha, seed=options.seed,
    )  # fmt: skip
    print(to_json(found.to_dict(), indent=2) if options.json else found)
    if found.drifted and found.first_layer is not None:
        messages.tell(f"drift is first seen in the layer {found.first_layer or '(itself)'}")
    if found.drifted:
        sys.exit(1)
