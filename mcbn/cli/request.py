"""What is asked of a verb: its options from texts, checked before any work."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Any

from mcbn.cli.configuration import print_options, read_texts
from mcbn.cli.declarations import Option, check, made, values_of
from mcbn.cli.effects import require_other_files, require_places, say_without_effect
from mcbn.cli.paths import expanded, require_inputs
from mcbn.cli.values import converted
from mcbn.cli.verbs import Verb

Texts = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Request:
    """Texts that were given for the options of a verb.

    Attributes:
        program: the command and the verb.
        verb: the verb.
        texts: those for each option that was given, by its name; of the general options, too.
        others: options that the verb does not declare, as --name=value.
    """

    program: str
    verb: Verb
    texts: Texts
    others: Sequence[str] = ()

    def read(self) -> Any:
        """The options of the verb; prints them and ends the process if asked to.

        Raises:
            FileNotFoundError: there is no such file of options.
            ValueError: an option is unknown, missing or not of its kind.
        """
        declared, texts = self.verb.declared(), dict(self.texts)
        if "config" in texts:
            texts = read_texts(texts["config"][0], declared, self.program) | texts
        values = {
            option.field: self._value(option, texts.get(name)) for name, option in declared.items()
        }
        if "print-config" not in declared and self._asks_for("print-config"):
            print_options({name: values[option.field] for name, option in declared.items()})
            sys.exit(0)
        self._require_all(declared, values)
        say_without_effect([declared[name] for name in texts if name in declared], values)
        others = self.verb.others()
        if others is not None:
            values[others.field] = list(self.others)
        return made(self.verb.options, values)

    def check(self, options: Any) -> None:
        """Check the options, and the files that they name: those to read are there, none is lost.

        Raises:
            OSError: a file is not there, or cannot be written.
            ValueError: a file would be lost, or an option contradicts another.
        """
        declared = list(self.verb.declared().values())
        values = values_of(options)
        require_other_files(declared, values)
        require_places(declared, values, force=self._asks_for("force"))
        require_inputs(declared, values, self.verb.positional)
        check(options)

    def _value(self, option: Option, texts: Sequence[str] | None) -> Any:
        return option.default if texts is None else expanded(option, converted(option, texts))

    def _asks_for(self, switch: str) -> bool:
        general = self.verb.general()
        return switch in self.texts and converted(general[switch], self.texts[switch]) is True

    def _require_all(self, declared: Mapping[str, Option], values: Mapping[str, Any]) -> None:
        missing = [
            self.verb.metavar if name == self.verb.positional else f"--{name}"
            for name, option in declared.items()
            if values[option.field] is MISSING
        ]
        if missing:
            raise ValueError(
                f"expected {' and '.join(missing)} of {self.program}, got none; {self.program} "
                "--help explains it"
            )
