"""Labels of an expression's result, as far as its text defines them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import promql_parser as promql

from dashboards.registry import Known

# None where the expression does not say, as of plain series, or where there are no series, as of numbers.
Labels = frozenset[str] | None


def labels_of(expression: promql.Expr, recorded: Mapping[str, Known]) -> Labels:
    """Return the labels that the result is grouped by; `recorded` are the series that recording rules make."""
    match expression:
        case promql.AggregateExpr():
            return _of_aggregate(expression, recorded)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return labels_of(expression.expr, recorded)
        case promql.BinaryExpr():
            return _first((expression.lhs, expression.rhs), recorded)
        case promql.VectorSelector(name=str(name)) if name in recorded:
            return recorded[name].labels
        case promql.Call():
            return _of_call(expression, recorded)
    return None


def _of_aggregate(expression: promql.AggregateExpr, recorded: Mapping[str, Known]) -> Labels:
    if str(expression.op) in ("topk", "bottomk"):
        return labels_of(expression.expr, recorded)
    if expression.modifier is None:
        return frozenset()
    by = expression.modifier.type == promql.AggModifierType.By
    return frozenset(expression.modifier.labels) if by else None


def _of_call(expression: promql.Call, recorded: Mapping[str, Known]) -> Labels:
    if expression.func.name.startswith("label_"):
        return None
    found = _first(expression.args, recorded)
    return found - {"le"} if found and expression.func.name == "histogram_quantile" else found


def _first(expressions: Iterable[promql.Expr], recorded: Mapping[str, Known]) -> Labels:
    each = (labels_of(expression, recorded) for expression in expressions)
    return next((found for found in each if found is not None), None)
