"""A Sphinx extension for the reference: tables of its entries, and links to them from code.

Both are made of the entries themselves, so that they cannot be out of step with them.
"""

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

NOT_LINKED = (nodes.title, nodes.rubric, nodes.reference, addnodes.pending_xref)
CALL = re.compile(r"([A-Za-z_][\w.]*)(?:\(.*\))?", flags=re.DOTALL)


class Place(nodes.General, nodes.Element):
    """Where a summary will be, once all pages are read."""


class Summary(SphinxDirective):
    """The entries of a page, this one if none is given, each with its sentence."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Keep the place."""
        return [Place(page=self.arguments[0] if self.arguments else self.env.docname)]


class Summaries(SphinxPostTransform):
    """Puts tables where summaries belong, before references are resolved."""

    default_priority = 5

    def run(self, **_: Any) -> None:
        """Fill each place: by sections on the page itself, in one table elsewhere."""
        for place in list(self.document.findall(Place)):
            page = place["page"]
            sections = self.sections(page)
            if page != self.env.docname:
                sections = {"": [each for entries in sections.values() for each in entries]}
            tables: list[nodes.Node] = []
            for title, entries in sections.items():
                if len(sections) > 1:
                    tables.append(nodes.rubric("", title))
                tables.append(self.table(page, entries))
            place.replace_self(tables)

    def sections(self, page: str) -> dict[str, list[addnodes.desc]]:
        """The entries under each heading of a page, without their methods."""
        found: dict[str, list[addnodes.desc]] = {}
        for entry in self.env.get_doctree(page).findall(addnodes.desc):
            outside = list(parents(entry))
            if not any(isinstance(each, addnodes.desc) for each in outside):
                section = next(each for each in outside if isinstance(each, nodes.section))
                found.setdefault(section[0].astext(), []).append(entry)
        return found

    def table(self, page: str, entries: list[addnodes.desc]) -> nodes.table:
        """Two columns: the name, which is a link, and the first paragraph of the docstring."""
        rows = nodes.tbody()
        for entry in entries:
            signature, content = entry[0], entry[-1]
            name = ".".join((signature["module"], signature["fullname"]))
            link = nodes.reference("", "", breakable(short(name)), internal=True)
            link["refuri"] = self.uri(page, signature["ids"][0])
            sentence = next(content.findall(nodes.paragraph)).deepcopy()
            cells = (nodes.paragraph("", "", link), sentence)
            rows += nodes.row("", *(nodes.entry("", cell) for cell in cells))
        columns = [nodes.colspec(colwidth=width) for width in (1, 2)]
        return nodes.table("", nodes.tgroup("", *columns, rows, cols=2), classes=["summary"])

    def uri(self, page: str, anchor: str) -> str:
        """The address of an entry, from this page."""
        return f"{self.app.builder.get_relative_uri(self.env.docname, page)}#{anchor}"


class Links(SphinxPostTransform):
    """Makes code that is a name of the reference a link to its entry."""

    default_priority = 6

    def run(self, **_: Any) -> None:
        """Link each name that is neither in a heading or a link, nor in its own entry."""
        entries = self.env.domains.python_domain.objects
        for code in list(self.document.findall(nodes.literal)):
            around = list(parents(code))
            entry = entries.get(self.named(code.astext()))
            if entry is None or any(
                isinstance(each, NOT_LINKED)
                or (isinstance(each, addnodes.desc) and entry.node_id in each[0]["ids"])
                for each in around
            ):
                continue
            page = self.app.builder.get_relative_uri(self.env.docname, entry.docname)
            link = nodes.reference("", "", internal=True, refuri=f"{page}#{entry.node_id}")
            code.replace_self(link)
            link += code

    def named(self, code: str) -> str:
        """The full name that code stands for; on other pages `collect` may be a command."""
        call = CALL.fullmatch(code)
        name = call[1] if call else ""
        if name.startswith("mcbn."):
            return name
        in_reference = self.env.docname.startswith("api")
        return f"mcbn.{name}" if name[:1].isupper() or in_reference else ""


def parents(node: nodes.Node) -> Iterator[nodes.Node]:
    """What a node is in, from the inside out."""
    while node.parent is not None:
        node = node.parent
        yield node


def short(name: str) -> str:
    """A name as it is imported: `MCBatchNorm`, but `scores.brier` if it is in a module."""
    return name.removeprefix("mcbn.") if name.count(".") == 1 else ".".join(name.split(".")[-2:])


def breakable(name: str) -> nodes.literal:
    """Code that may be broken into lines after each dot."""
    first, *others = name.split(".")
    code = nodes.literal("", first)
    for part in others:
        code += [nodes.Text("."), nodes.raw("", "<wbr>", format="html"), nodes.Text(part)]
    return code


def setup(app: Any) -> dict[str, bool]:
    """Register the directive and what fills it."""
    app.add_node(Place)
    app.add_directive("summary", Summary)
    app.add_post_transform(Summaries)
    app.add_post_transform(Links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
