"""The house rules that a machine can check: who may import whom, and how long things may be."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "course_lib").rglob("*.py"))
METHODS = {"redundancy", "pruning", "quantization", "distillation", "low_rank"}

# room -> the rooms that it may use; data -> models -> methods -> formats -> what combines them.
# No method imports another method: what two of them need sinks into models.
MAY_IMPORT = {
    "places": set(),  # every room may ask it
    "journal": set(),  # every room may write into it
    "device": set(),
    "data": {"device"},
    "models": {"device", "data"},
    **{method: {"device", "data", "models"} for method in METHODS},
    "formats": {"device", "data", "models", *METHODS},
    "acceleration": {"device", "data", "models", "formats", *METHODS},
    "language_models": {"device", "data", "models", "formats", *METHODS},
    "deep_compression": {"device", "data", "models", "formats", *METHODS},
    "pipeline": {
        "device",
        "data",
        "models",
        "formats",
        "measure",
        "language_models",
        *METHODS,
    },  # fmt: skip
    "challenge": {"device", "data", "models", "formats", "measure", "pipeline", "plots"},
    "sources": {"device", "data", "models", "formats", *METHODS},
    "measure": {"device", "data", "models"},
    "plots": {"measure"},
    "exercises": {
        "device",
        "data",
        "models",
        "measure",
        "formats",
        "acceleration",
        "language_models",
        "deep_compression",
        "pipeline",
        "challenge",
        *METHODS,
    },  # fmt: skip
    "classroom": {"exercises"},
    "doctor": {"device", "data", "models", "exercises"},
    "cli": {"data", "doctor", "exercises", "classroom", "challenge"},
}


def room(module: Path) -> str:
    return module.relative_to(ROOT / "course_lib").parts[0].removesuffix(".py")


def imported_rooms(module: Path) -> set[str]:
    """The rooms of course_lib that a module imports, anywhere in its text."""
    names = set()
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names if name.startswith("course_lib.")]
    return {name[1] for name in parts}


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(module):
    here = room(module)
    if here == "__init__":
        return
    assert here in MAY_IMPORT, f"{here} is a new room: say in this test what it may import"
    assert imported_rooms(module) - {here, "places", "journal"} <= MAY_IMPORT[here]


def test_only_the_rooms_of_the_house_exist():
    rooms = {room(module) for module in MODULES} - {"__init__"}
    assert rooms <= set(MAY_IMPORT)


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_fit_on_a_screen(module):
    tree = ast.parse(module.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            docstring = node.body[0].end_lineno - node.body[0].lineno + 1
            lines = node.end_lineno - node.lineno + 1
            lines -= docstring if ast.get_docstring(node) else 0
            assert lines <= 40, f"{module.name}: {node.name} has {lines} lines"


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_functions_say_what_they_do_and_take(module):
    for node in ast.parse(module.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = node.args.args + node.args.kwonlyargs
            assert ast.get_docstring(node), f"{module.name}: {node.name} has no docstring"
            assert node.returns is not None, f"{module.name}: {node.name} has no return type"
            untyped = [a.arg for a in arguments if a.annotation is None]
            assert not untyped, f"{module.name}: {node.name} has no types for {untyped}"


# The field's standard term -> spellings that mean the same and are not used here.
TERMS = {
    "quantization, quantize": r"quantis|\bde-quanti[sz]|\bquantification",
    "fine-tuning": r"\bfine ?tun(?:e|ed|ing)\b",
    "distillation": r"\bdestill|\bdistil(?:led|ling)? knowledge",
    "sparsity": r"\bsparseness\b",
    "zero-point": r"\bzero points?\b",
    "bits per byte": r"\bbits?[/-]byte|\bbits per bytes\b",
    "held-out": r"\bheld out (?:text|chapters|images|data)\b|\bholdout\b",
    "MinHash": r"\bMin-Hash|\bminHash",
    "Transformer": r"\btransformers?\b (?:model|block|layer)",
    "TinyLM": r"\bTiny-?Lm\b|\bTiny LM\b",
    "SmolLM2": r"\bSmolLm2?\b|\bSmollm2?\b",
}


@pytest.mark.parametrize("term", TERMS)
def test_terms_are_spelled_as_the_field_spells_them(term):
    lessons = sorted((ROOT / "solutions").glob("*.py"))
    pages = [*lessons, *MODULES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    found = {
        f"{path.name}: {match.group()}"
        for path in pages
        for match in re.finditer(TERMS[term], path.read_text("utf-8"))
    }
    assert not found, f"the course's word is {term}"
