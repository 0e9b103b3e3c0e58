"""Connectors come in through entry points: what `check` says of those that are not there, or fail."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from pydantic import BaseModel, ConfigDict

from eventflow.errors import RuleSetError, SourceUnavailable
from eventflow.rulefile.connectors import GROUP, Connectors, find_connectors
from eventflow.rulefile.load import load
from eventflow.rulefile.ruleset import RuleSet
from eventflow.source import Delivery, Source, SourceContext

MADE: list[tuple[str, BaseModel, SourceContext]] = []


class Own:
    """A third party's connector, as far as loading looks at it."""

    class Config(BaseModel):
        """Its words."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        address: str
        filter: str = "true"
        fails: str = ""

    delivery: ClassVar[Delivery] = Delivery.ordered

    def __init__(self, name: str, config: Any, context: SourceContext) -> None:
        MADE.append((name, config, context))
        context.expression(config.filter, ["data", "headers", "query"])
        if config.fails == "bug":
            raise KeyError("own bug")
        if config.fails:
            raise SourceUnavailable(config.fails)


def loaded(words: str, connectors: dict[str, Any] | None = None) -> RuleSet:
    known = cast("dict[str, type[Source]]", connectors or {"own": Own})
    return load({"r.yaml": f"sources: {{s: {{{words}}}}}".encode()}, Path("/set"), known)


def said(words: str, connectors: dict[str, Any] | None = None) -> str:
    with pytest.raises(RuleSetError) as caught:
        loaded(words, connectors)
    return str(caught.value)


def test_ours_are_found() -> None:
    assert {"file", "webhook"} <= set(find_connectors())


def test_a_connector_that_does_not_import_is_known_and_says_what_to_install() -> None:
    point = EntryPoint(name="ghost", value="no.such.module:Ghost [ghosts]", group=GROUP)
    connectors = Connectors({"ghost": point})
    assert len(connectors) == 1
    assert said("connector: ghost, a: 1", connectors) == (  # type: ignore[arg-type]
        "r.yaml:1:26: source 's': connector 'ghost' does not import here: No module named 'no'; "
        "install its package[ghosts]"
    )


def test_a_source_is_made_once_by_check_to_hear_what_it_objects_to() -> None:
    MADE.clear()
    ruleset = loaded("connector: own, address: a, filter: data.n > 1")
    assert [name for name, _, _ in MADE] == ["s"]
    assert ruleset.sources["s"].config == Own.Config(address="a", filter="data.n > 1")
    assert MADE[0][2].folder == Path("/set")
    assert MADE[0][2].secret("ANY") == ""


def test_what_a_source_objects_to_is_an_error_of_the_set() -> None:
    assert said("connector: own, address: a, fails: no good") == "r.yaml:1:11: source 's': no good"
    assert said("connector: own, address: a, filter: data..n") == (
        "r.yaml:1:51: source 's': filter: '.' cannot stand here (at 1:6 of the expression)"
    )


def test_a_bug_of_a_connector_is_no_traceback() -> None:
    assert said("connector: own, address: a, fails: bug") == (
        "r.yaml:1:11: source 's': the connector 'own' fails: KeyError: 'own bug'"
    )
