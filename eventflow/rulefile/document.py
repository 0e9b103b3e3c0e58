"""Files -> the definitions they declare, by name: structure and uniqueness, not yet meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from eventflow.event import EVENTFLOW_SOURCE
from eventflow.rulefile.block import Block
from eventflow.rulefile.folder import RULE_SUFFIXES, TEST_SUFFIXES
from eventflow.rulefile.nodes import MapNode, Mark, ScalarNode, kind, shorten
from eventflow.rulefile.report import Report
from eventflow.rulefile.words import FILE, NAME
from eventflow.rulefile.yaml import read_yaml


@dataclass(slots=True)
class Document:
    """Every definition of a set, as one mapping per kind.

    `names` holds per kind also the names whose definitions are no mappings: they are declared all the
    same. `complete` is false where a file could not be read to its end: names may be missing then.
    """

    definitions: dict[str, dict[str, Block]] = field(default_factory=lambda: {kind: {} for kind in FILE.now})
    names: dict[str, dict[str, tuple[str, Mark]]] = field(
        default_factory=lambda: {kind: {} for kind in FILE.now}
    )
    complete: bool = True


def read_documents(files: Mapping[str, bytes], report: Report) -> Document:
    """Read all rule files, in order of their names."""
    document = Document()
    for file in sorted(files):
        if file.endswith(RULE_SUFFIXES) and not file.endswith(TEST_SUFFIXES):
            _read_file(files[file], report.of(file), document)
    return document


def _read_file(content: bytes, report: Report, document: Document) -> None:
    root, complete = read_yaml(content, report.error)
    document.complete = document.complete and complete
    if root is None or (isinstance(root, ScalarNode) and root.value is None):
        return
    if not isinstance(root, MapNode):
        document.complete = False
        report.error(root, f"a rule file is a mapping with {', '.join(FILE.now)}; this is {kind(root)}")
        return
    top = Block(report, "rule file", root.mark, root)
    top.check_words(FILE)
    for section in FILE.now:
        if section in top and not _is_nothing(top, section):
            block = top.block(section, section)
            if block is not None:
                _declare(block, section, document)


def _is_nothing(top: Block, section: str) -> bool:
    node = top.get(section)
    return isinstance(node, ScalarNode) and node.value is None


def _declare(section_block: Block, section: str, document: Document) -> None:
    singular = section.removesuffix("s")
    report = section_block.report
    for name, entry in section_block.entries():
        if not NAME.fullmatch(name):
            message = "begins with a letter and has at most 63 of a-z, 0-9 and '-'"
            report.error(entry.key, f"{singular} '{shorten(name)}': a name {message}")
        if section == "sources" and name == EVENTFLOW_SOURCE:
            report.error(entry.key, f"the source '{name}' is built in; choose another name")
        first = document.names[section].get(name)
        if first is not None:
            file, (line, column) = first
            report.error(
                entry.key, f"{singular} '{shorten(name)}' is already defined at {file}:{line}:{column}"
            )
            continue
        document.names[section][name] = (report.file, entry.key)
        block = section_block.inner(entry, f"{singular} '{shorten(name)}'")
        if block is not None:
            document.definitions[section][name] = block
