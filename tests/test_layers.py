"""The project rules that a program can check: layers, tests, docstrings."""

import ast
import inspect
import sys
from pathlib import Path

import kdopt

ROOT = Path(__file__).parents[1]
MODULES = {
    path.relative_to(ROOT / "kdopt").with_suffix("").as_posix(): path
    for path in sorted((ROOT / "kdopt").rglob("*.py"))
    if path.name != "__init__.py"
}

BASE = {"_typing", "_dtypes"}
SMALL = {*BASE, "_linalg"}
SOLVERS = {"_simplex", "_cone", "_fixed_point", "_spectrum"}
ALGEBRA = {*SMALL, "_gram", "_lambda_weights", "_log_losses", *SOLVERS}
SUMS = {"_gram_rows", "_mesh"}
PLUMBING = {"_transform", "_traces", "_checks", "_keys", "_present", "_running"}

MAY_IMPORT = {
    "_typing": set(),
    "_dtypes": set(),
    "_checks": BASE,
    "_keys": BASE,
    "_present": BASE,
    "_running": BASE,
    "_mesh": BASE,
    "_gram_rows": BASE,
    "_gram": {*BASE, *SUMS},
    "_linalg": BASE,
    "_log_losses": BASE,
    "_nonnegative": SMALL,
    "_spectrum": SMALL,
    "_simplex": {*SMALL, "_nonnegative"},
    "_cone": {*SMALL, "_nonnegative", "_simplex"},
    "_fixed_point": {*SMALL, "_simplex"},
    "_lambda_weights": BASE,
    "_parabola": {*BASE, "_lambda_weights"},
    "_transform": {*BASE, "_gram", "_present"},
    "_traces": {*BASE, "_gram", "_present", "_simplex", "_transform"},
    "_loss_weights": {*BASE, "_present", "_transform"},
    "balancers": {*ALGEBRA, *PLUMBING},
    "scalarizers": {*ALGEBRA, *PLUMBING - {"_traces"}, "_loss_weights"},
    "losses": {*BASE, "losses"},
    "_differentiate": BASE,
    "_masks": BASE,
    "per_loss": {*BASE, "_differentiate", "_loss_weights", "_masks", "_present"},
    "nnx": {*BASE, "_differentiate", "per_loss"},
    "diagnostics": {
        *SMALL,
        *("_checks", "_gram", "_loss_weights", "_parabola", "_present", "_simplex"),
    },
    "_balanced_loss": {
        *BASE,
        *("_differentiate", "_gram", "_loss_weights", "per_loss", "diagnostics"),
    },
    "_reachable": {*BASE, "_differentiate"},
    "wrappers": {
        *BASE,
        *("_checks", "_gram", "_loss_weights", "_masks", "_mesh", "_present"),
        *("_cone", "_linalg", "_transform"),
        "diagnostics",
    },
}
"""Layers: for each module, or package of modules, what of kdopt it may import."""

REACH, VALUES = "balancers/_reach", "scalarizers/_values"
ELEMENTS = "balancers/_elements"
CONSTRAINED = "balancers/_constrained"
MEMORY = "scalarizers/_memory"
SCALES, WINDOWS = "scalarizers/_log_scales", "scalarizers/_windows"

SIBLINGS = {
    "balancers/_moco": {"balancers/_modo"},
    "balancers/_dynamic_barrier": {CONSTRAINED},
    "balancers/_multi_adam": {ELEMENTS},
    "balancers/_pcd": {CONSTRAINED},
    "balancers/_dot": {"balancers/_streams", REACH},
    "balancers/_dot_adam": {REACH, ELEMENTS},
    "balancers/_dot_lars": {"balancers/_dot", REACH},
    "balancers/_dot_lion": {REACH, ELEMENTS},
    "balancers/_gain_matched_sgd": {"balancers/_linear", "balancers/_streams", REACH},
    "balancers/_streams": {REACH, ELEMENTS},
    "scalarizers/_cosmos": {VALUES},
    "scalarizers/_dto_kd_amortized": {"scalarizers/_log_softmax"},
    "scalarizers/_dwa": {WINDOWS},
    "scalarizers/_famo": {"scalarizers/_log_softmax"},
    "scalarizers/_geometric_mean": {VALUES},
    "scalarizers/_hypergradient": {VALUES},
    "scalarizers/_imtl_l": {SCALES},
    "scalarizers/_lagrangian": {MEMORY},
    "scalarizers/_relobralo": {MEMORY},
    "scalarizers/_slaw": {MEMORY},
    "scalarizers/_magnitude_match": {VALUES},
    "scalarizers/_memory": {VALUES},
    "scalarizers/_log_scales": {VALUES},
    "scalarizers/_log_softmax": {VALUES},
    "scalarizers/_momentum_conflict_free": {"balancers/_conflict_free", ELEMENTS},
    "scalarizers/_pbi": {VALUES},
    "scalarizers/_softadapt": {WINDOWS},
    "scalarizers/_stch": {VALUES},
    "scalarizers/_uncertainty": {SCALES},
    "scalarizers/_windows": {VALUES},
    **{
        f"wrappers/_{name}": {"wrappers/_inner"}
        for name in ("accumulate", "ema", "every", "partition", "restrict")
    },
    "wrappers/_skip_nonfinite": {"wrappers/_inner"},
}
"""One method per file: others are a method with fixed hyper-parameters, or share an
engine."""

WITHOUT_TESTS_OF_ITS_OWN = {
    "_typing",
    "losses/_reduce",
    *("_checks", "_keys", "_loss_weights", "_masks"),
    "_traces",
    *SUMS,
}
"""Names only, shared inputs of losses, and solvers and plumbing that the tests of the
methods cover; the parts of the Gram matrix."""


def layer(module):
    return module.split("/")[0]


def imports(path):
    """Modules of kdopt that a file imports, as paths without the package's name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kdopt"):
            assert node.level == 0
            parts = node.module.split(".")[1:]
            if parts:
                yield "/".join(parts)
            else:
                yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name.split(".")[0] != "kdopt", f"{path}: import from it"


def test_imports_go_one_way():
    for module, path in MODULES.items():
        allowed = MAY_IMPORT.get(layer(module))
        assert allowed is not None, f"give {module} a layer in MAY_IMPORT"
        for name in imports(path):
            known = layer(name) in allowed or name in SIBLINGS.get(module, ())
            assert known, f"kdopt/{module}.py may not import kdopt/{name}.py"


LAB = ROOT / "examples" / "kdlab" / "src" / "kdlab"
ROOMS = (
    *("basics", "settings", "devices", "runs", "models", "data", "losses", "train"),
    *("experiment", "detection", "minima", "report", "papers", "study", "regret"),
    *("cli", "__main__"),
)
"""Rooms of the laboratory: each may import those before it, and itself."""

LAB_MODULES = {
    path.relative_to(LAB).with_suffix("").as_posix(): path
    for path in sorted(LAB.rglob("*.py"))
}


def lab_imports(path):
    """Modules of kdlab that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, path
            package, *parts = (node.module or "").split(".")
            if package != "kdlab":
                continue
            folder = "/".join(parts)
            if (LAB / folder).is_dir():
                for alias in node.names:
                    module = f"{folder}/{alias.name}".lstrip("/")
                    known = module in LAB_MODULES or (LAB / module).is_dir()
                    yield module if known else f"{folder}/__init__"
            else:
                yield folder
        elif isinstance(node, ast.Import):
            assert all(a.name.split(".")[0] != "kdlab" for a in node.names), path


def test_rooms_of_the_laboratory_are_in_order():
    assert {layer(name) for name in LAB_MODULES} <= {*ROOMS, "__init__"}
    for name, path in LAB_MODULES.items():
        for other in lab_imports(path):
            upward = ROOMS.index(layer(other)) > ROOMS.index(layer(name))
            assert not upward, f"kdlab/{name}.py may not import kdlab/{other}.py"


def test_modules_of_the_laboratory_have_no_cycle():
    """No two import each other, not even for the names of types."""
    edges = {name: set(lab_imports(path)) for name, path in LAB_MODULES.items()}
    edges = {name: {o for o in found if o in edges} for name, found in edges.items()}
    while leaves := {name for name, found in edges.items() if not found}:
        edges = {n: found - leaves for n, found in edges.items() if n not in leaves}
    assert not edges, f"these import each other: {edges}"


def test_nothing_hides_an_import_from_the_layers():
    for name, path in LAB_MODULES.items():
        assert "TYPE_CHECKING" not in path.read_text(), name


def test_layers_have_no_cycle():
    order = list(MAY_IMPORT)
    for name, allowed in MAY_IMPORT.items():
        for other in allowed - {name}:
            assert order.index(other) < order.index(name), (name, other)


def third_party(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)


def test_dependencies_are_few():
    allowed = {"jax", "optax", "jaxtyping", "numpy", "kdopt", *sys.stdlib_module_names}
    for module, path in MODULES.items():
        # nnx is imported by those who use it
        extra = {"flax"} if module == "nnx" else set()
        assert set(third_party(path)) <= allowed | extra, module


def test_every_module_has_its_tests():
    for module in MODULES.keys() - WITHOUT_TESTS_OF_ITS_OWN:
        *folders, name = module.split("/")
        path = ROOT.joinpath("tests", *folders, f"test_{name.lstrip('_')}.py")
        assert path.exists(), f"kdopt/{module}.py needs {path.relative_to(ROOT)}"


def public_names():
    for package in (kdopt, kdopt.balancers, kdopt.scalarizers, kdopt.losses):
        for name in package.__all__:
            yield f"{package.__name__}.{name}", getattr(package, name)
    for name, value in vars(kdopt.diagnostics).items():
        if getattr(value, "__module__", "") == "kdopt.diagnostics" and name[0] != "_":
            yield f"kdopt.diagnostics.{name}", value


def test_docstrings_are_complete():
    for name, function in public_names():
        if inspect.isfunction(function):
            check_docstring(name, function)


def check_docstring(name, function):
    doc = inspect.getdoc(function) or ""
    first = doc.splitlines()[0]
    assert first.endswith(".") and len(first) <= 88, name
    for section in ("Args:", "Returns:", "Examples:"):
        assert f"\n{section}\n" in doc, f"{name} lacks {section}"
    example = doc[doc.index("\nExamples:\n") :]
    assert ">>> " in example and "print(" in example, f"{name}: a doctest that prints"
    assert "+SKIP" not in doc, name
    arguments = doc[doc.index("\nArgs:\n") : doc.index("\nReturns:\n")]
    for parameter in inspect.signature(function).parameters:
        assert f"    {parameter}" in arguments or f"*{parameter}" in arguments, (
            f"{name} does not describe {parameter}"
        )


def test_public_classes_say_what_they_are():
    for name, value in public_names():
        if inspect.isclass(value):
            assert value.__doc__ and "Alias for field" not in value.__doc__, name


def test_all_is_sorted_and_complete():
    for module in (kdopt.balancers, kdopt.scalarizers, kdopt.losses):
        public = {
            name
            for name, value in vars(module).items()
            if name[0] != "_" and getattr(value, "__module__", "").startswith("kdopt")
        }
        assert list(module.__all__) == sorted(module.__all__), module
        assert set(module.__all__) == public, module


PUBLIC = [kdopt, kdopt.balancers, kdopt.scalarizers, kdopt.losses, kdopt.wrappers]


def test_dir_shows_public_names_alone():
    for module in (*PUBLIC, kdopt.diagnostics, kdopt.nnx):
        names = dir(module)
        assert set(module.__all__) <= set(names), module
        assert not [name for name in names if name[0] == "_" and name != "__version__"]
        assert all(hasattr(module, name) for name in names), module


def test_the_face_names_everything_once():
    names = list(kdopt.__all__)
    assert len(set(names)) == len(names)
    assert set(kdopt.balancers.__all__) & set(vars(kdopt)) <= set(names)
    pure = names[names.index("aligned_mtl_weights") :]
    assert "value_and_grads" in names[:20]
    assert not {"dto_kd", "stch", "gram", "monitor"} & set(pure)
