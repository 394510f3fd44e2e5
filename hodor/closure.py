"""The code that a step runs, as a hash: the import closure of its modules, without comments, docstrings and layout.

The closure is found in the source, without importing anything: `import` statements anywhere in a file count, also
those inside functions. Only modules of this package belong to it. What is loaded by a computed name (a method, by its
id) is invisible here; whoever asks for the hash names such modules.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from hodor.errors import HodorError

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT.name


def code_hash(modules: Iterable[str], root: Path = ROOT) -> str:
    """Hexadecimal sha256 over the import closure of the modules (dotted names).

    It changes with the meaning of the code and with nothing else: not with comments, docstrings, formatting, the
    package's version, or modules outside the closure. Raises HodorError if a module is not there.
    """
    digest = hashlib.sha256()
    for module in closure(modules, root):
        digest.update(f"{module}\n{_read(module, root).meaning}\n".encode())
    return digest.hexdigest()


def closure(modules: Iterable[str], root: Path = ROOT) -> list[str]:
    """The modules and all that they import, directly or not, sorted; packages on the way to a module included."""
    found: set[str] = set()
    waiting = list(modules)
    for module in waiting:
        if _find(module, root) is None:
            raise HodorError(f"module {module}: not found under {root}")
    while waiting:
        module = waiting.pop()
        if module in found or _find(module, root) is None:
            continue
        found.add(module)
        if "." in module:
            waiting.append(module.rpartition(".")[0])
        waiting.extend(_read(module, root).imports)
    return sorted(found)


@cache
def _find(module: str, root: Path) -> Path | None:
    """File of a module of this package; None for anything else, such as a function or another package."""
    package, *parts = module.split(".")
    if package != PACKAGE:
        return None
    base = root.joinpath(*parts)
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file() and base.name.isidentifier():
            return path
    return None


class _Source(NamedTuple):
    """What a file says: the names that it imports, which may be modules or things inside one, and its code."""

    imports: tuple[str, ...]
    meaning: str


@cache
def _read(module: str, root: Path) -> _Source:
    path = _find(module, root)
    assert path is not None, module
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, SyntaxError, ValueError) as error:
        raise HodorError(f"{path}: not valid Python ({error})") from None
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *filter(None, [base])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return _Source(tuple(name for name in names if name.split(".")[0] == PACKAGE), _canonical(tree))


def _canonical(node: object) -> str:
    """Text of a syntax tree that is the same for every Python that can parse it: ast.dump and ast.unparse are not."""
    if isinstance(node, list):
        return "[" + ",".join(_canonical(item) for item in node if not _without_meaning(item)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    # Fields that a later Python adds are empty where the code does not use them.
    fields = [
        f"{name}={_canonical(value)}"
        for name, value in ast.iter_fields(node)
        if name not in ("ctx", "kind", "type_comment") and (value is not None and value != [])
    ]
    return f"{type(node).__name__}({','.join(fields)})"


def _without_meaning(node: object) -> bool:
    """Docstrings, also those of attributes, and the package's version."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__version__"]
