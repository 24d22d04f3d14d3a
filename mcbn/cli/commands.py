"""Commands of click, made from the table of verbs and the classes of their options."""

import inspect
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from mcbn.cli.declarations import Option, options_of
from mcbn.cli.options.general import GeneralOptions
from mcbn.cli.request import Request
from mcbn.cli.values import did_you_mean
from mcbn.cli.verbs import GROUPS, STUDY_VERBS, VERBS, Verb
from mcbn.cli.words import HELP, asks_for_help, spelled

PROGRAM = "mcbn"
WIDTH = 100
SETTINGS: Mapping[str, Any] = {"help_option_names": HELP, "max_content_width": WIDTH}
HYPHEN = "\u2011"  # at which no line breaks
NEAR = 0.8  # how like a declared option an unknown one is that is taken for a mistake
METAVARS = {"input": "FILE", "data": "DATA", "output": "FILE", "model": "FILE:FUNCTION",
            "study": "DIR", "report": "DIR", "demo": "DIR", "resumed": "DIR"}  # fmt: skip
FOLDERS = ("study", "report", "demo", "resumed")
OTHERS, BARE = "mcbn.others", "bare"


class Formatter(click.HelpFormatter):
    """Help whose lines break at spaces only, so that no option is cut at a hyphen."""

    def write_dl(self, rows: Iterable[tuple[str, str]], *layout: Any, **more: Any) -> None:
        """Write a list of names and what they mean."""
        kept = [(name, text.replace("-", HYPHEN)) for name, text in rows]
        super().write_dl(kept, *layout, **more)

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write how a command is called."""
        super().write_usage(prog, args.replace("-", HYPHEN), prefix)

    def getvalue(self) -> str:
        """The help so far."""
        return super().getvalue().replace(HYPHEN, "-")


class Context(click.Context):
    """A context of click with this help."""

    formatter_class = Formatter


class Switch(click.Option):
    """An option that needs no value, and is given one as --name=true."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Read a value, which is always there but while a shell completes words."""
        if ctx.resilient_parsing:
            super().add_to_parser(parser, ctx)
        else:
            parser.add_option(obj=self, opts=self.opts, dest=self.name, action="store", nargs=1)


class VerbCommand(click.Command):
    """The command of a verb."""

    context_class = Context

    def __init__(self, name: str, verb: Verb) -> None:
        self.verb, self.declared, self.general = verb, verb.declared(), verb.general()
        self.options = self.declared | self.general
        text, _, _ = inspect.cleandoc(verb.options.__doc__).partition("\n\nAttributes:")
        text = text.replace("-", HYPHEN)
        super().__init__(
            name, params=self._parameters(), help=text, short_help=verb.summary,
            context_settings={**SETTINGS, "allow_extra_args": True}, options_metavar="[OPTIONS]",
        )  # fmt: skip

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read words into texts of options."""
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        if asks_for_help(args):
            return super().parse_args(ctx, ["--help"])
        found, bare = self._spelled(args)
        others = [word for word in found if self._is_other(word)]
        self._require_distinct(others, ctx.command_path)
        ctx.meta[OTHERS] = others
        options = [word for word in found if word not in others]
        try:
            return super().parse_args(ctx, [*options, "--", *bare])
        except click.NoSuchOption as error:
            raise _unknown(error.option_name, self.options, ctx.command_path) from error

    def invoke(self, ctx: click.Context) -> None:
        """Run the verb; its code is imported only here."""
        request = self.request(ctx)
        options = request.read()
        request.check(options)
        pkgutil.resolve_name(f"mcbn.cli.{self.verb.place}")(options)

    def request(self, ctx: click.Context) -> Request:
        """The texts that were given for each option.

        Raises:
            ValueError: a word belongs to no option.
        """
        of_study = self.verb in STUDY_VERBS.values()
        program = f"{ctx.command_path} DIR" if of_study else ctx.command_path
        bare = [*(ctx.params.get(BARE) or ()), *ctx.args]
        positional = self.verb.positional
        if bare and not positional:
            raise ValueError(
                f"expected options of {program}, got {bare[0]!r}; write its --name before each "
                "value"
            )
        if len(bare) > 1 and not self.options[positional].is_list:
            raise ValueError(
                f"expected one {positional} of {program}, got {bare}; give one, and write its "
                "--name before each value of an option"
            )
        texts = {
            name: bare if name == positional else _texts(ctx.params.get(option.field))
            for name, option in self.options.items()
        }
        given = {name: each for name, each in texts.items() if each}
        return Request(program, self.verb, given, ctx.meta[OTHERS])

    def collect_usage_pieces(self, *_: Any) -> list[str]:
        """What the verb cannot do without, and that there are options."""
        required = [
            f"--{name} {_metavar(option)}"
            for name, option in self.declared.items()
            if option.required and name != self.verb.positional
        ]
        return [each for each in (self.verb.metavar, *required, "[OPTIONS]") if each]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of the verb, then those of every verb."""
        positional = self.options.get(self.verb.positional)
        if positional is not None:
            with formatter.section("Arguments"):
                formatter.write_dl([(self.verb.metavar, _help(positional))])
        own = {f"--{name}" for name in self.declared}
        params = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        for title, wanted in (("Options", True), ("General options", False)):
            chosen = [each for each in params if bool(own & {*each.opts}) is wanted]
            rows = [row for each in chosen if (row := each.get_help_record(ctx))]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
        if self.verb.others() is not None:
            formatter.write_paragraph()
            formatter.write(pkgutil.resolve_name("mcbn.cli.study_run:keys")())

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write nothing: arguments are written with the options."""

    def _parameters(self) -> list[click.Parameter]:
        positional = self.options.get(self.verb.positional)
        options = [_parameter(each) for each in self.options.values() if each is not positional]
        if positional is None:
            return [*options]
        bare = click.Argument(
            [BARE], nargs=-1, type=str, required=False, metavar=self.verb.metavar,
            shell_complete=partial(_completions, positional),
        )  # fmt: skip
        return [bare, *options]

    def _spelled(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        others = self.verb.others() is not None
        return spelled(words, self.options, positional=self.verb.positional, others=others)

    def _is_other(self, word: str) -> bool:
        """Whether an option is one that the verb takes without having declared it."""
        known = not word.startswith("--") or word[2:].partition("=")[0] in self.options
        return self.verb.others() is not None and not known

    def _require_distinct(self, others: Sequence[str], program: str) -> None:
        """Check that no other option is a misspelled one of the verb."""
        for word in others:
            name = word.partition("=")[0]
            if did_you_mean(name, [f"--{each}" for each in self.options], near=NEAR):
                raise _unknown(name, self.options, program)


class VerbGroup(click.Group):
    """The command of all verbs, or of those that begin with one word."""

    context_class = Context

    def __init__(self, name: str, prefix: str = "", **settings: Any) -> None:
        super().__init__(
            name, context_settings=SETTINGS, subcommand_metavar="VERB [OPTIONS]",
            options_metavar=None, **settings,
        )  # fmt: skip
        self.prefix = prefix

    def list_commands(self, *_: Any) -> list[str]:
        """The next words of the verbs, in the order of their table."""
        rest = [name.removeprefix(self.prefix) for name in VERBS if name.startswith(self.prefix)]
        return list(dict.fromkeys(each.partition(" ")[0] for each in rest))

    def get_command(self, _: click.Context, cmd_name: str, /) -> click.Command | None:
        """The command of a word; None if there is none."""
        name = f"{self.prefix}{cmd_name}"
        if name in VERBS:
            return VerbCommand(cmd_name, VERBS[name])
        if name in GROUPS:
            return VerbGroup(cmd_name, f"{name} ", help=GROUPS[name].capitalize() + ".",
                             short_help=GROUPS[name])  # fmt: skip
        return None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options before a verb."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            names = [each.removeprefix("--") for p in self.get_params(ctx) for each in p.opts]
            raise _unknown(error.option_name, names, ctx.command_path) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of the first word; suggests the nearest if there is none."""
        word, *rest = args
        command = self.get_command(ctx, word)
        name = f"{self.prefix}{word}"
        if command is not None and name in STUDY_VERBS and _is_of_study(name, rest):
            command = VerbCommand(word, STUDY_VERBS[name])
        if command is None and not ctx.resilient_parsing:
            verbs = self.list_commands()
            hint = did_you_mean(word, verbs) or f"the verbs are {', '.join(verbs)}"
            raise ValueError(f"expected a verb of {ctx.command_path}, got {word!r}; {hint}")
        return (word if command else None), command, rest


@cache
def root() -> VerbGroup:
    """The command of all verbs."""
    general = [_parameter(each) for each in options_of(GeneralOptions).values()]
    release = click.Option(
        ["--version", "-V"], is_flag=True, is_eager=True, expose_value=False,
        callback=_print_version, help="print the version",
    )  # fmt: skip
    return VerbGroup(
        PROGRAM, params=[*general, release], help="Bayesian uncertainty from batch normalisation.",
        epilog="mcbn VERB --help and mcbn help VERB show the options of a verb, "
        "mcbn completion SHELL completes them.",
    )  # fmt: skip


def _print_version(ctx: click.Context, _: click.Parameter, value: Any) -> None:
    if value and not ctx.resilient_parsing:
        print(f"{PROGRAM} {version('mcbn')}")
        ctx.exit()


def _parameter(option: Option) -> click.Option:
    """The option of click for an option."""
    names = [f"--{option.name}", option.field]
    if option.is_switch:
        return Switch(names, is_flag=True, default=None, type=str, help=_help(option))
    return click.Option(
        names, multiple=True, type=str, metavar=_metavar(option), help=_help(option),
        shell_complete=partial(_completions, option),
    )  # fmt: skip


def _metavar(option: Option) -> str:
    """What stands for the value of an option in the help."""
    if option.choices:
        return f"[{'|'.join(option.choices)}]"
    of_kind = {int: "N", float: "NUMBER"}.get(option.kind)
    if of_kind and option.words:
        return f"[{'|'.join([*option.words, of_kind])}]"
    return METAVARS.get(option.role) or of_kind or option.name.rpartition("-")[2].upper()


def _completions(
    option: Option, _: click.Context, __: click.Parameter, start: str
) -> list[CompletionItem]:
    """The values of an option that begin so, or that they are files or folders."""
    if option.choices:
        return [CompletionItem(each) for each in option.choices if each.startswith(start)]
    if not option.role:
        return []
    return [CompletionItem(start, type="dir" if option.role in FOLDERS else "file")]


def _help(option: Option) -> str:
    text = option.help.rstrip(".") + (f"; as {option.forms}" if option.forms else "")
    if any(option.default is each for each in (MISSING, None, False)):
        return text
    return f"{text} (default: {option.default})"


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _unknown(word: str, known: Any, program: str) -> ValueError:
    hint = did_you_mean(word, [f"--{name}" for name in known]) or f"{program} --help lists them"
    return ValueError(f"expected options of {program}, got {word!r}; {hint}")


def _is_of_study(name: str, words: Sequence[str]) -> bool:
    """Whether what a verb of predictions is given is the folder of a study."""
    verb = VERBS[name]
    try:
        _, bare = spelled(words, verb.declared() | verb.general(), positional="", others=True)
    except ValueError:
        return False
    named = any(word.startswith("--predictions") for word in words)
    return len(bare) == 1 and not named and Path(bare[0]).is_dir()
