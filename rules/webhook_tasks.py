"""The tasks of webhook.yaml: plain functions. What they return is JSON; what they raise fails the run."""

from __future__ import annotations

from typing import Any


def changed(commits: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Which files the commits touched, each once, in the order of their names."""
    names = {name for commit in commits for kind in ("added", "modified") for name in commit[kind]}
    removed = {name for commit in commits for name in commit["removed"]}
    return {"files": sorted(names - removed)}


def build(repository: str, commit: str, files: list[str]) -> dict[str, Any]:
    """Where a build would begin: this one only says what it would build."""
    return {"build": f"{repository}@{commit[:12]}", "files": len(files)}


def book(invoice: str, amount: int, currency: str) -> dict[str, str]:
    """The line of a ledger. `amount` is in the smallest unit of the currency."""
    return {"line": f"{invoice}: {amount // 100}.{amount % 100:02d} {currency.upper()}"}


def pick(order: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """A pick list: how many of what."""
    wanted: dict[str, int] = {}
    for line in lines:
        wanted[line["sku"]] = wanted.get(line["sku"], 0) + line["quantity"]
    return {"order": order, "pick": {sku: number for sku, number in sorted(wanted.items()) if number > 0}}
