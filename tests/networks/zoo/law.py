"""The law of the zoo: every entry answers every network exactly, refuses in words, or warns.

An entry is a way into the package. It is asked of a fresh network; its answer is compared with what
PyTorch alone computes on copies. What comes of it is one of the verdicts.
"""

import re
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from zoo import collecting, exporting, inspecting, predicting, sampling
from zoo.guest import AbsentError, Guest, RefusedError, WrongError
from zoo.stranger import ABSENT, EXACT, REFUSED, WARNED, Stranger

import mcbn
from mcbn.network.isolation import StreamStates

WRONG = "wrong"
# The networks of the zoo are hardly trained, so this is said of many of them.
UNTRAINED = mcbn.InconsistentBankWarning
REFUSAL = re.compile(r"expected .*, got .*[;:] \w", re.DOTALL)  # and what to do
PACKAGE = str(Path(mcbn.__file__).parent)


ENTRIES: dict[str, Callable[[Guest], list[str] | None]] = {
    "collect minibatches": collecting.collect_minibatches,
    "collect loader": collecting.collect_loader,
    **{f"mcbn {engine}": partial(sampling.by_engine, engine) for engine in sampling.ENGINES},
    "mcbn pieces": sampling.in_pieces,
    "linearized": sampling.linearized,
    "dropout": sampling.dropout,
    "inserted": sampling.inserted,
    "augmented": sampling.augmented,
    "laplace": sampling.laplace,
    "posterior": sampling.posterior,
    "ensemble": sampling.ensemble,
    "deterministic": sampling.deterministic,
    "switch": sampling.switch,
    "predict tensor": predicting.predict_tensor,
    "predict loader": predicting.predict_loader,
    "predict regrouped": predicting.predict_regrouped,
    "bank": predicting.bank,
    "inspect": inspecting.inspect,
    "doctor": inspecting.by_doctor,
}
SLOW_ENTRIES: dict[str, Callable[[Guest], list[str] | None]] = {
    "predict dataset": predicting.predict_dataset,
    "compare": predicting.compare,
    "commands": inspecting.by_commands,
    "export pt2": partial(exporting.by_export, "pt2"),
    "export onnx": partial(exporting.by_export, "onnx"),
}
ALL_ENTRIES = ENTRIES | SLOW_ENTRIES


@dataclass(frozen=True)
class Verdict:
    """What came of asking one entry of one network, and its words."""

    kind: str
    text: str = ""


def verdict(stranger: Stranger, entry: str) -> Verdict:
    """Ask an entry of a network."""
    said: list[str] = []
    streams = StreamStates.now()  # whatever an entry does to them is its own verdict
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            said += ALL_ENTRIES[entry](Guest(stranger)) or []
            found = Verdict(EXACT)
        except AbsentError as error:
            return Verdict(ABSENT, str(error))
        except WrongError as error:
            found = Verdict(WRONG, str(error))
        except RefusedError as error:
            found = _named(stranger, entry, Verdict(REFUSED, str(error)))
        except (ValueError, TypeError) as error:
            found = _named(stranger, entry, _refusal(error))
        except Exception as error:
            found = Verdict(WRONG, f"raw {type(error).__name__}: {error}"[:300])
        finally:
            streams.restore()
    if found.kind == REFUSED or "as found" in found.text:
        return found
    said += [str(each.message) for each in seen if each.category is not UNTRAINED]
    told = [text for text in said if stranger.words and re.search(stranger.words, text)]
    return Verdict(WARNED, told[0]) if told else found


def faults(stranger: Stranger, verdicts: Mapping[str, Verdict]) -> dict[str, str]:
    """What is not right, by entry: other verdicts than are allowed, and entries that disagree."""
    wrong = {
        entry: f"expected {' or '.join(stranger.allowed(entry))}, got {found.kind}: {found.text}"
        for entry, found in verdicts.items()
        if found.kind not in (stranger.allowed(entry) | {ABSENT})
    }
    collected = verdicts.get("collect minibatches", Verdict(ABSENT)).kind
    for entry in ("inspect", "doctor"):
        said = verdicts.get(entry, Verdict(ABSENT)).kind
        apart = entry in stranger.expected or ABSENT in (said, collected)
        if not apart and said != collected and "collect minibatches" not in wrong:
            wrong.setdefault(entry, f"expected what collect says, {collected}, got {said}")
    return wrong


def _refusal(error: Exception) -> Verdict:
    """A refusal in our words, or an error that came through raw."""
    place = traceback.extract_tb(error.__traceback__)[-1].filename
    text = str(error)
    if place.startswith(PACKAGE) and REFUSAL.search(text):
        return Verdict(REFUSED, text)
    return Verdict(WRONG, f"raw {type(error).__name__}: {text}"[:300])


def _named(stranger: Stranger, entry: str, found: Verdict) -> Verdict:
    """A refusal counts only where it names what it is about; some have reasons of their own."""
    own = ("linearized", "augmented", "inserted", "laplace", "posterior", "export")
    words = "" if entry.startswith(own) else stranger.words
    if found.kind == REFUSED and words and not re.search(words, found.text):
        return Verdict(WRONG, f"refused for another reason: {found.text}"[:300])
    return found
