"""CEL, the expression language of `where` and of holes: compiled at load, bounded when it runs.

Specification: https://github.com/google/cel-spec. What an expression may cost is in `cel.py`, how
values go in and out in `values.py`, strings with holes in `template.py`.
"""

from __future__ import annotations

from eventflow.expression.cel import Activation, Expression, VarType, activate
from eventflow.expression.template import Hole, Template
from eventflow.expression.tree import Reference
from eventflow.expression.values import (
    EvaluationError,
    ExpressionError,
    event_values,
    time_text,
)

__all__ = [
    "Activation",
    "EvaluationError",
    "Expression",
    "ExpressionError",
    "Hole",
    "Reference",
    "Template",
    "VarType",
    "activate",
    "event_values",
    "time_text",
]
