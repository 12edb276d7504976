"""What the fields of a dataclass mean, as the text below each says. Pure; needs the source."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Mapping

_ROLE = re.compile(r"``(.+?)``")


def meanings(section: type) -> Mapping[str, str]:
    """The text of each field of a dataclass, on one line, with single backticks."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(section)))
    (definition,) = tree.body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    name = None
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found[name] = _on_one_line(str(node.value.value))
            name = None
    return found


def summary(section: type) -> str:
    """The first paragraph of its docstring, on one line."""
    return _on_one_line((inspect.getdoc(section) or "").partition("\n\n")[0])


def _on_one_line(text: str) -> str:
    return _ROLE.sub(r"`\1`", " ".join(text.split()))
