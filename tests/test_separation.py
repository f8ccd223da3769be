"""The rules of the house that only the source text can show: who imports whom, and how long."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = {"replay_server", "collect", "train", "eval", "supervise", "slurm"}
PACKAGES = PROGRAMS | {"sactory"}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(text: str) -> Iterator[tuple[ast.stmt, str]]:
    """Each import in a module, at any depth, with the top-level package it names."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node, node.module.split(".")[0]


def foreign_programs(text: str, package: str) -> list[str]:
    """The programs other than its own that a module imports."""
    return [
        f"line {node.lineno}: {top}" for node, top in imported(text) if top in PROGRAMS - {package}
    ]


def whole_eval_imports(text: str) -> list[int]:
    """Lines that bind the name `eval` to the package and so hide the builtin."""
    return [n.lineno for n, top in imported(text) if top == "eval" and isinstance(n, ast.Import)]


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=name)
def test_programs_meet_only_in_sactory(path):
    package = path.relative_to(ROOT).parts[0]
    assert foreign_programs(path.read_text(), package) == []


def test_every_program_has_modules():
    for program in PACKAGES - {"slurm"}:
        assert len(sources(program)) > 1, program


@pytest.mark.parametrize(
    ("text", "package", "found"),
    [
        ("import train.agent", "collect", ["line 1: train"]),
        ("def f():\n  from eval import main", "sactory", ["line 2: eval"]),
        ("from train import agent\nfrom sactory import rows\nfrom . import x", "train", []),
        ("import training, collections", "sactory", []),
    ],
)
def test_the_separation_test_sees_imports(text, package, found):
    assert foreign_programs(text, package) == found


def test_nothing_hides_the_builtin_eval():
    everything = [*sources(*PACKAGES, "tests", "benchmarks", ".ci"), ROOT / "setup.py"]
    assert [f for path in everything for f in whole_eval_imports(path.read_text())] == []
    assert whole_eval_imports("import eval\nfrom eval import main\nimport eval.video") == [1, 3]


@pytest.mark.parametrize("path", sources(*PACKAGES, "benchmarks", ".ci"), ids=name)
def test_modules_are_short(path):
    limit = 80 if path.name == "main.py" else 300
    assert len(path.read_text().splitlines()) <= limit


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=name)
def test_no_module_is_named_like_its_package(path):
    # Run as a script, such a module would be imported in the place of its package.
    assert path.stem != path.parent.name


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_main_holds_no_configurable(program):
    main = ROOT / program / "main.py"
    if not main.exists():
        return
    # `python -m` runs it as __main__; imported again, it would register its configurables twice.
    nodes = list(ast.walk(ast.parse(main.read_text())))
    names = {n.id for n in nodes if isinstance(n, ast.Name)}
    names |= {n.attr for n in nodes if isinstance(n, ast.Attribute)}
    assert "configurable" not in names
