"""The tasks of postgres_cdc.yaml: plain functions. What they return must be JSON."""

from __future__ import annotations


def label(order: int, customer: str) -> dict[str, object]:
    """What would go to the printer. A retry of the same order prints the same label."""
    return {"order": order, "label": f"{customer.upper()} / {order:06d}"}


def reorder(item: str, on_hand: int) -> dict[str, object]:
    """What would go to the supplier."""
    return {"item": item, "quantity": 100 - on_hand}
