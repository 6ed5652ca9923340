"""The structure of the package: allowed imports, and names that hide no module."""

import ast
import pkgutil
from importlib import import_module
from pathlib import Path

import pytest
from flax import nnx

import afflow

ROOT = Path(afflow.__file__).parent
MAY_IMPORT = {
    "_tools": set(),
    "core": {"_tools"},
    "saving": {"_tools"},
    "testing": {"_tools", "core"},
    "nets": {"_tools"},
    "codecs": {"_tools"},
    "univariates": {"_tools", "core"},
    "distributions": {"_tools", "core"},
    "conditioners": {"_tools", "core", "nets"},
    "conditionals": {"_tools", "core", "univariates"},
    "bijectors": {"_tools", "core", "univariates"},
    "training": {"_tools", "core", "bijectors"},
    "models": {"_tools", "core", "bijectors", "distributions"},
}
MAY_IMPORT["inference"] = {*MAY_IMPORT} - {"testing", "saving", "nets", "codecs", "conditioners"}
MAY_IMPORT["zoo"] = {*MAY_IMPORT} - {"testing", "inference", "saving", "codecs"}
MAY_IMPORT["sbi"] = {*MAY_IMPORT} - {"testing", "saving", "codecs"}
MAY_IMPORT["adapters"] = {*MAY_IMPORT} - {"testing", "inference", "saving", "codecs"}
MAY_IMPORT["plots"] = {"_tools", "models", "training", "sbi"}
MAY_IMPORT["__main__"] = {"saving"}


def rooms_imported(room):
    """Yield each subpackage that a module of `room` imports, and the name of the module's file."""
    files = (ROOT / room).rglob("*.py") if (ROOT / room).is_dir() else [ROOT / f"{room}.py"]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("afflow."):
                yield node.module.split(".")[1], file.name


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_one_way(room):
    found = {(other, file) for other, file in rooms_imported(room) if other != room}
    assert not {pair for pair in found if pair[0] not in MAY_IMPORT[room]}


def test_every_room_is_listed():
    rooms = {info.name for info in pkgutil.iter_modules([str(ROOT)])}
    assert rooms == set(MAY_IMPORT)


def test_no_name_hides_a_module():
    """Check that the attribute `y` of `afflow.x` is the module `afflow.x.y`."""
    for info in pkgutil.walk_packages([str(ROOT)], "afflow."):
        module = import_module(info.name)
        parent, _, leaf = info.name.rpartition(".")
        assert getattr(import_module(parent), leaf) is module


def test_no_two_modules_of_a_model_have_one_name():
    """Check that a name in a saved file, which omits the module, means one class."""
    places = {}
    for info in pkgutil.walk_packages([str(ROOT)], "afflow."):
        for name, value in vars(import_module(info.name)).items():
            if isinstance(value, type) and issubclass(value, nnx.Module):
                places.setdefault(name, set()).add(value.__module__)
    assert not {name: found for name, found in places.items() if len(found) > 1}


def test_each_name_is_at_the_top_or_in_the_package_of_its_role():
    """Check that a name missing at the top raises an error that says its subpackage."""
    assert len(afflow.__all__) < 80
    for role in afflow.__all__:
        package = getattr(afflow, role)
        for name in getattr(package, "__all__", ()):
            found = getattr(package, name)
            if name in afflow.__all__:
                assert getattr(afflow, name) is found
            else:
                with pytest.raises(AttributeError, match=rf"it is afflow\.\w+\.{name}$"):
                    getattr(afflow, name)
