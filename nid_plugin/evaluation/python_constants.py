"""Constants of a Python file, read without running it."""

import ast
from pathlib import Path
from typing import Any

from plugin_common.errors import UserError


class _NoConstant(Exception):
    """An expression that is more than literals and names of such."""


def module_constants(path: str) -> dict[str, Any]:
    """What a module's top level assigns to names: texts, numbers, lists, dictionaries, and names of earlier ones.

    Other statements are passed over.

    Raises:
        UserError: the file is no Python.
    """
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path}: not valid Python ({error})") from error
    known: dict[str, Any] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and all(isinstance(target, ast.Name) for target in statement.targets):
            try:
                value = _constant(statement.value, known)
            except _NoConstant:
                continue
            known.update({target.id: value for target in statement.targets if isinstance(target, ast.Name)})
    return known


def _constant(node: ast.expr, known: dict[str, Any]) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.Name() if node.id in known:
            return known[node.id]
        case ast.List() | ast.Tuple():
            return [_constant(element, known) for element in node.elts]
        case ast.Dict() if None not in node.keys:
            keys = [_constant(key, known) for key in node.keys if key is not None]
            if not all(isinstance(key, str | int) for key in keys):
                raise _NoConstant
            return dict(zip(keys, [_constant(value, known) for value in node.values], strict=True))
        case ast.BinOp(op=ast.Add()):
            left, right = _constant(node.left, known), _constant(node.right, known)
            if isinstance(left, str) and isinstance(right, str):
                return left + right
    raise _NoConstant
