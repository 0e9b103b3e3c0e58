"""The tasks of kafka.yaml. A task may run again after a crash: its effects are keyed by the payment."""

from __future__ import annotations


def book(payment: str, account: str, cents: int) -> dict[str, object]:
    """The booking, as it is announced on the next topic."""
    return {"booking": f"b-{payment}", "payment": payment, "account": account, "euros": f"{cents / 100:.2f}"}


def ask(payment: str, cents: int) -> dict[str, str]:
    """What a person is asked."""
    return {"question": f"Book payment {payment} of {cents / 100:,.2f} EUR?"}


def reverse(payment: str) -> dict[str, str]:
    """The booking that is taken back."""
    return {"reversed": f"b-{payment}"}
