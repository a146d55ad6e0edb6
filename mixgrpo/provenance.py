"""A digest of the code that a stage runs, so that exactly the stale rules rerun.

Static (`ast`, nothing is imported): a module, whatever it imports of this package, also inside functions,
and the `__init__` of every package on the way. What a stage imports by a name in the config (a model, a
reward) is invisible to it, so `stage_modules` adds those. Comments, docstrings and layout do not count.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = "mixgrpo"
ROOT = Path(__file__).resolve().parent.parent


def stage_modules(
    verb: str,
    *,
    models: Iterable[str] = (),
    rewards: Iterable[str] = (),
    component: str | None = None,
    figure: str | None = None,
) -> tuple[str, ...]:
    """Modules that decide what `python -m mixgrpo {verb}` does with what its settings name.

    component: what `pretrain` trains. figure: what `figure` draws.

    >>> stage_modules("train", models=["flux"], rewards=["tiny_hps"])
    ('mixgrpo.stages.train', 'mixgrpo.models.flux', 'mixgrpo.rewards.tiny_hps')
    """
    stage = f"{PACKAGE}.stages.{verb}"
    return (
        stage,
        *(f"{PACKAGE}.models.{name}" for name in sorted(set(models))),
        *(f"{PACKAGE}.rewards.{name}" for name in sorted(set(rewards))),
        *(
            []
            if component is None
            else [ast.literal_eval(constant(stage, "COMPONENTS"))[component]]
        ),
        *([] if figure is None else [f"{PACKAGE}.report.{figure}"]),
    )


@cache
def digest(*modules: str, root: Path = ROOT) -> str:
    """12 hex digits that change when the code of `modules`, or of what they import below `root`, does."""
    names = sorted(set().union(*(closure(module, root) for module in modules)))
    code = [f"{name}\n{ast.unparse(parse(name, root))}" for name in names]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()[:12]


def planned_code(*modules: str) -> str:
    """`DIGEST:MODULES`, what a rule records and hands to its job as --code: the job recomputes and compares."""
    return f"{digest(*modules)}:{','.join(modules)}"


@cache
def closure(module: str, root: Path = ROOT) -> frozenset[str]:
    """`module` and all modules of this package that it reaches by import. ValueError when there is no such file."""
    if path_of(module, root) is None:
        raise ValueError(
            f"{module} has no file below {root}: a stage, model or reward is a file of that name."
        )
    found: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name not in found and path_of(name, root) is not None:
            found.add(name)
            todo.extend(parents(name))
            todo.extend(imports(name, root))
    return frozenset(found)


def path_of(module: str, root: Path) -> Path | None:
    """File of a module of this package; None for other packages and for names that are no modules."""
    if module.split(".")[0] != PACKAGE:
        return None
    path = root.joinpath(*module.split("."))
    candidates = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def parents(module: str) -> list[str]:
    """Packages whose `__init__` runs before `module` does.

    >>> parents("mixgrpo.stages.train")
    ['mixgrpo', 'mixgrpo.stages']
    """
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def imports(module: str, root: Path) -> Iterator[str]:
    """Every dotted name that `module` imports; `from a import b` gives both a and a.b."""
    path = path_of(module, root)
    is_package = path is not None and path.name == "__init__.py"
    for node in ast.walk(parse(module, root)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = absolute(node, module if is_package else module.rpartition(".")[0])
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)


def absolute(node: ast.ImportFrom, package: str) -> str:
    """Dotted name of what `from ... import` reads, as seen from inside `package`."""
    if not node.level:
        return node.module or ""
    above = package.split(".")
    above = above[: len(above) - (node.level - 1)]
    return ".".join([*above, *filter(None, [node.module])])


@cache
def parse(module: str, root: Path) -> ast.Module:
    """Syntax tree of a module without its docstrings."""
    path = path_of(module, root)
    assert path is not None, module
    tree = ast.parse(path.read_text(), filename=str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not is_string(part)] or [ast.Pass()]
    return tree


def constant(module: str, name: str, root: Path = ROOT) -> ast.expr:
    """The expression that `module` assigns to `name`, read without importing it."""
    for node in parse(module, root).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if [ast.unparse(target) for target in targets] == [name]:
                return node.value
    raise ValueError(f"{module} assigns no constant {name}.")


def keys_of(module: str, name: str) -> list[str]:
    """Keys of the dict literal `name` of `module`: what there is to choose from.

    >>> "flux" in keys_of("mixgrpo.stages.pretrain", "COMPONENTS")
    True
    """
    expression = constant(module, name)
    assert isinstance(expression, ast.Dict), name
    return [str(ast.literal_eval(key)) for key in expression.keys if key is not None]


def options_of(reward: str) -> list[str]:
    """Keyword-only arguments of `load` in a reward's file: the options that a preset may give it.

    >>> options_of("sharpness")
    []
    """
    for node in parse(f"{PACKAGE}.rewards.{reward}", ROOT).body:
        if isinstance(node, ast.FunctionDef) and node.name == "load":
            return sorted(argument.arg for argument in node.args.kwonlyargs)
    return []


def modules_in(layer: str) -> list[str]:
    """Names of the files of a folder of the package: what its loader can be asked for.

    >>> modules_in("models")
    ['flux']
    """
    return sorted(path.stem for path in (ROOT / PACKAGE / layer).glob("[!_]*.py"))


def is_string(statement: ast.stmt) -> bool:
    """A docstring, or the string under a dataclass field that documents it."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
