"""Whether a JSON value fits a type annotation, read as syntax: nothing of it is evaluated."""

import ast
from collections.abc import Callable, Mapping
from typing import Any

LISTS = {"list", "List", "Sequence", "Iterable", "Collection", "tuple", "Tuple", "set", "Set", "frozenset"}
MAPPINGS = {"dict", "Dict", "Mapping", "MutableMapping"}

PLAIN: Mapping[str, Callable[[Any], bool]] = {
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "None": lambda value: value is None,
} | (
    dict.fromkeys(LISTS, lambda value: isinstance(value, list | tuple))
    | dict.fromkeys(MAPPINGS, lambda value: isinstance(value, Mapping))
)


def type_of(default: ast.expr) -> ast.expr | None:
    """The annotation that a default stands for; None where it may be anything (None, or an expression)."""
    if isinstance(default, ast.UnaryOp) and isinstance(default.op, ast.USub | ast.UAdd):
        default = default.operand
    if isinstance(default, ast.Constant):
        name = type(default.value).__name__
        return ast.Name(name) if name in PLAIN else None
    if isinstance(default, ast.List | ast.ListComp | ast.Tuple):
        return ast.Name("list")
    if isinstance(default, ast.Dict | ast.DictComp):
        return ast.Name("dict")
    return None


def fits(kind: ast.expr, value: Any) -> bool:
    """Whether the value is of that type, as far as the annotation can be understood."""
    if isinstance(kind, ast.Constant):
        return _fits_constant(kind.value, value)
    if isinstance(kind, ast.Name | ast.Attribute):
        check = PLAIN.get(_name(kind))
        return check is None or check(value)
    if isinstance(kind, ast.BinOp) and isinstance(kind.op, ast.BitOr):
        return fits(kind.left, value) or fits(kind.right, value)
    if isinstance(kind, ast.Subscript):
        return _fits_subscript(_name(kind.value), _arguments(kind), value)
    return True


def describe(kind: ast.expr) -> str:
    """The annotation as it is written."""
    return ast.unparse(kind)


def _fits_constant(annotation: object, value: Any) -> bool:
    if annotation is None:
        return value is None
    if isinstance(annotation, str):
        try:
            return fits(ast.parse(annotation, mode="eval").body, value)
        except SyntaxError:
            return True
    return True


def _fits_subscript(base: str, arguments: list[ast.expr], value: Any) -> bool:
    if base == "Literal":
        return any(_is_literal(one, value) for one in arguments)
    if base in {"Union", "Optional"}:
        return (base == "Optional" and value is None) or any(fits(one, value) for one in arguments)
    if base in {"Annotated", "Final", "ClassVar"}:
        return fits(arguments[0], value)
    check = PLAIN.get(base)
    return check is None or (check(value) and _items_fit(base, arguments, value))


def _items_fit(base: str, arguments: list[ast.expr], value: Any) -> bool:
    if base in MAPPINGS and len(arguments) == 2:
        return all(fits(arguments[1], item) for item in value.values())
    if base in LISTS - {"tuple", "Tuple"}:
        return all(fits(arguments[0], item) for item in value)
    return True


def _is_literal(node: ast.expr, value: Any) -> bool:
    try:
        literal = ast.literal_eval(node)
    except ValueError:
        return True
    return type(literal) is type(value) and bool(literal == value)


def _arguments(kind: ast.Subscript) -> list[ast.expr]:
    return list(kind.slice.elts) if isinstance(kind.slice, ast.Tuple) else [kind.slice]


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
