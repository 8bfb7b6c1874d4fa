"""Small wrong versions of a function, made by changing its syntax tree in one place.

Every mutant of an exercise's reference should be rejected by the exercise's checker: one that is
accepted is a wrong answer that a learner would get full points for.
"""

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable, Iterator

import torch

BINARY = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
COMPARE = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
NAMES = {
    "min": "max",
    "amin": "amax",
    "argmin": "argmax",
    "floor": "ceil",
    "sum": "mean",
    "log": "log2",
    "log2": "log",
    "any": "all",
    "exp": "log",
    "round": "floor",
    "zeros_like": "ones_like",
    "zeros": "ones",
}
NAMES |= {other: name for name, other in NAMES.items() if other not in NAMES}
MODULES = {"torch", "F", "math", "np", "nn"}
REDUCTIONS = {"sum", "mean", "amax", "amin", "max", "min", "norm", "argmax", "argmin", "prod"}


def mutants(function: Callable, differentiable: bool = False) -> Iterator[tuple[str, Callable]]:
    """(what was changed, mutant) for every place of the function's body that can be changed.

    Then the function as a whole: its inputs in float32, and, where it is there to be
    differentiated, its value detached.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    definition = tree.body[0]
    if ast.get_docstring(definition):
        definition.body = definition.body[1:]
    definition.decorator_list, definition.returns = [], None
    plain = {a.arg for a in definition.args.args if a.annotation and _is_plain(a.annotation)}
    for argument in definition.args.args:
        argument.annotation = None
    for node in definition.body:  # largest = 2 ** (bits - 1) - 1 is as plain as bits
        if isinstance(node, ast.Assign) and _names(node.value) <= plain | MODULES:
            plain |= _names(node.targets[0])
    places = [node for statement in definition.body for node in _walk(statement)]
    for number, node in enumerate(places):
        for change, replacement in _changes(node, plain):
            copied = copy.deepcopy(tree)
            copies = [n for statement in copied.body[0].body for n in _walk(statement)]
            replaced = _replace(copied, copies[number], replacement)
            namespace = function.__globals__ | {"_at_least": _at_least}
            code = compile(ast.fix_missing_locations(replaced), "<mutant>", "exec")
            exec(code, namespace)
            yield f"line {node.lineno}: {change}", namespace[function.__name__]
    yield "inputs in float32", lambda *inputs: function(*map(_float32, inputs))
    if differentiable:
        yield "value detached", lambda *inputs: _detached(function(*inputs))


def _float32(value: object) -> object:
    return value.float() if torch.is_tensor(value) and value.is_floating_point() else value


def _detached(value: object) -> object:
    if isinstance(value, list | tuple):
        return type(value)(map(_detached, value))
    return value.detach() if torch.is_tensor(value) else value


def _at_least(least: float, value: object) -> object:
    return value.clamp(min=least) if torch.is_tensor(value) else max(value, least)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, without annotations, guards (`if …: raise`) and error messages."""
    guard = isinstance(node, ast.If) and all(isinstance(s, ast.Raise) for s in node.body)
    if guard or isinstance(node, ast.Raise):
        return
    yield node
    for field, value in ast.iter_fields(node):
        if field == "annotation":
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walk(child)


def _names(node: ast.expr) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _is_plain(annotation: ast.expr) -> bool:
    return ast.unparse(annotation) in ("int", "float", "str")


def _changes(node: ast.AST, plain: set[str]) -> Iterator[tuple[str, ast.AST]]:
    """(description, new node) for every change that this node allows; `plain` are no tensors."""
    before = ast.unparse(node) if isinstance(node, ast.expr | ast.stmt) else ""

    def changed(**fields) -> tuple[str, ast.AST]:
        new = copy.copy(node)
        for name, value in fields.items():
            setattr(new, name, value)
        return f"{before} -> {ast.unparse(new)}", new

    if isinstance(node, ast.Constant) and type(node.value) is bool:
        yield changed(value=not node.value)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield changed(value=node.value + 1)
        yield changed(value=node.value - 1)
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in BINARY:
        yield changed(op=BINARY[type(node.op)]())
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            yield from _denominator_changes(node, changed, plain)
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARE:
        yield changed(ops=[COMPARE[type(node.ops[0])](), *node.ops[1:]])
    elif isinstance(node, ast.BoolOp):
        yield changed(op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp):
        yield f"{before} -> {ast.unparse(node.operand)}", node.operand
    elif isinstance(node, ast.If | ast.IfExp):
        yield changed(test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield changed(attr=NAMES[node.attr])
    elif isinstance(node, ast.Call):
        yield from _call_changes(node, before, changed)


def _denominator_changes(node: ast.BinOp, changed, plain) -> Iterator[tuple[str, ast.AST]]:
    """What people add to be safe: an epsilon in a denominator, or a least value for it."""
    if _names(node.right) - plain - MODULES - {"len"}:
        epsilon = ast.Constant(1e-8)
        yield changed(right=ast.BinOp(node.right, ast.Add(), epsilon))
        least = ast.Call(ast.Name("_at_least", ast.Load()), [ast.Constant(1e-6), node.right], [])
        yield changed(right=least)


def _call_changes(node: ast.Call, before: str, changed) -> Iterator[tuple[str, ast.AST]]:
    """A call dropped (x.clamp(…) -> x, f(x) -> x), or one of its keywords left out.

    Of a reduction also: over all entries instead of one axis, and without the last entry.
    """
    method = isinstance(node.func, ast.Attribute)
    on_module = method and ast.unparse(node.func.value).split(".")[0] in MODULES
    kept = node.func.value if method and not on_module else (node.args or [None])[0]
    if kept is not None and not isinstance(kept, ast.Starred):
        yield f"{before} -> {ast.unparse(kept)}", kept
    if method and not on_module and node.func.attr in REDUCTIONS:
        if node.args or node.keywords:
            yield changed(args=[], keywords=[])
        rest = ast.parse("x[..., :-1]", mode="eval").body
        rest.value = node.func.value
        yield changed(func=ast.Attribute(rest, node.func.attr, ast.Load()))
    for keyword in node.keywords:
        if keyword.arg not in ("device", None):
            yield changed(keywords=[k for k in node.keywords if k is not keyword])


def _replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> ast.AST:
    class Replacer(ast.NodeTransformer):
        def visit(self, node):
            return copy.deepcopy(new) if node is old else self.generic_visit(node)

    return Replacer().visit(tree)
