"""The arrows between packages and between C folders (docs: CONTRIBUTING.md, "Rules"), sizes, and what files may say."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINGER, DOPT, CSRC = ROOT / "linger", ROOT / "dopt", ROOT / "csrc"

# package -> what it may import from linger, besides itself
BASE = {"_C", "errors", "files"}
ARROWS = {
    "errors": {"_C"},
    "files": set(),
    "_fakes": {"ops"} | BASE,
    "ops": BASE,
    "settings": BASE,
    "chip": {"ops"} | BASE,
    "quantizers": {"ops", "settings"} | BASE,
    "runtime": {"quantizers", "ops"} | BASE,
    "nn": {"runtime", "quantizers", "settings", "chip", "ops"} | BASE,
    "convert": {"nn", "runtime", "quantizers", "settings", "chip", "ops"} | BASE,
    "measure": {"convert", "nn", "runtime", "quantizers", "settings", "chip", "ops"} | BASE,
    "onnx": {"convert", "nn", "runtime", "quantizers", "settings", "chip", "ops"} | BASE,
}
ARROWS["monitoring"] = {"runtime", "quantizers", "ops"} | BASE
ARROWS["tuning"] = {"measure", "convert", "nn", "runtime", "quantizers", "settings", "chip", "ops"} | BASE
ARROWS["compat"] = set(ARROWS) | BASE
ARROWS["command_line"] = set(ARROWS) | BASE
ARROWS["__main__"] = {"command_line"}
ARROWS["checker"] = {"onnx"} | BASE  # an import path of the 3.x generation
# folders and files of linger/nn: each imports those in front of it only
ROOMS = "masks constructor limited base functional nodes constrained moves arithmetic functions pooling layers recurrent".split()
PYTHON = sorted(LINGER.rglob("*.py"))

# part of dopt -> what of dopt, of linger and of the frameworks it may import
DOPT_ARROWS = {
    "__init__": {"dopt.dopt_torch"},
    "config": set(),
    "params": {"dopt.config"},
    "dopt_torch": {
        "dopt.config",
        "dopt.params",
        "linger.ops",
        "linger.convert",
        "linger.nn",
        "linger.settings",
        "torch",
    },
    "dopt_tf": {"dopt.config", "dopt.params", "tensorflow"},
}
DOPT_PYTHON = sorted(DOPT.rglob("*.py"))
NATIVE = sorted(path for path in CSRC.rglob("*") if path.suffix in {".c", ".h", ".cpp", ".cu"})


def package_of(path: Path, root: Path = LINGER) -> str:
    return path.relative_to(root).parts[0].removesuffix(".py")


def imports(path: Path, running: bool = False) -> Iterator[tuple[str, int]]:
    """The modules a file imports, anywhere in it, as absolute names; ``running``: without those for type checkers."""
    here = path.relative_to(ROOT).with_suffix("").parts
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    unread = {id(inner) for n in typing for part in n.body for inner in ast.walk(part)} if running else set()
    for node in ast.walk(tree):
        if id(node) in unread:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def test_every_package_has_its_arrows():
    packages = {package_of(path) for path in PYTHON} - {"__init__"}
    assert packages <= set(ARROWS), "give the new package its row in ARROWS, and in the documents"


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    package = package_of(path)
    if package == "__init__":
        return
    for name, line in imports(path):
        parts = name.split(".")
        if parts[0] != "linger" or len(parts) == 1:
            assert name != "linger", f"{path}:{line}: import the part you need, not the public names"
            continue
        allowed = parts[1] == package or parts[1] in ARROWS[package]
        assert allowed, f"{path}:{line}: {package} must not import linger.{parts[1]}"


@pytest.mark.parametrize("path", DOPT_PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_of_dopt_follow_the_arrows(path):
    """Users of one framework need not have the other, and linger is a package for torch."""
    part = package_of(path, DOPT)
    for name, line in imports(path):
        two = ".".join(name.split(".")[:2])
        if two.split(".")[0] in {"dopt", "linger", "torch", "tensorflow"}:
            allowed = two == f"dopt.{part}" or {two, two.split(".")[0]} & DOPT_ARROWS[part]
            assert allowed, f"{path}:{line}: dopt.{part} must not import {name}"


def test_linger_does_not_know_dopt():
    for path in PYTHON:
        assert not [line for name, line in imports(path) if name.split(".")[0] == "dopt"], path


@pytest.mark.parametrize("path", sorted((LINGER / "nn").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_of_nn_follow_their_order(path):
    room = path.relative_to(LINGER / "nn").parts[0].removesuffix(".py")
    if room == "__init__":
        return
    assert room in ROOMS, "give the new folder its place in ROOMS, and in the documents"
    for name, line in imports(path):
        if name.startswith("linger.nn."):
            other = name.split(".")[2]
            allowed = other in ROOMS[: ROOMS.index(room) + 1]
            assert allowed, f"{path}:{line}: linger/nn/{room} must not import linger.nn.{other}, which stands behind it"


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_no_modules_import_each_other_in_a_circle():
    """Imports inside functions count; those for type checkers alone do not run."""
    modules = {module_of(path): path for path in PYTHON + DOPT_PYTHON}
    waiting = {}
    for module, path in modules.items():
        found = set()
        for name, _ in imports(path, running=True):
            while name and name not in modules:
                name = name.rpartition(".")[0]
            found.add(name)
        waiting[module] = found - {module, "linger", ""}
    while True:  # whoever waits for nobody may go
        free = {module for module, needs in waiting.items() if not needs & set(waiting)}
        if not free:
            break
        for module in free:
            del waiting[module]
    circle = {module: sorted(needs & set(waiting)) for module, needs in sorted(waiting.items())}
    assert circle == {}, f"these wait for each other: {circle}; move what both need into a file of its own"


def _assigned(path: Path, name: str) -> ast.Dict:
    """The dictionary that a module assigns to a name."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name and isinstance(node.value, ast.Dict):
            return node.value
    raise AssertionError(f"{path}: no {name}")


def test_layers_and_operators_name_no_chip():
    """A chip is a row of ``chip/platforms.py``: what it can and how it computes are fields, not comparisons with its name."""
    names = {ast.literal_eval(key) for key in _assigned(LINGER / "chip/platforms.py", "LIMITS").keys if key is not None}
    files = [path for path in PYTHON if path.relative_to(LINGER).parts[0] in ("nn", "ops")]
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert names == {"arcs", "mars", "venusA", "venus"} and found == []
    spelled = re.compile(rf"\b(LGR_)?({'|'.join(names)})(?![A-Za-z0-9])", re.IGNORECASE)
    text = {path: path.read_text(encoding="utf-8") for path in NATIVE if path.parent == CSRC / "ops"}
    found = [
        f"{path.relative_to(ROOT)}:{i}: {line}"
        for path, lines in text.items()
        for i, line in enumerate(lines.split("\n"), 1)
        if spelled.search(line.partition("//")[0])
    ]
    assert len(text) > 30 and found == [], "a chip's number is a field: `to_chip`, or a function of the kernels"


def test_import_of_linger_needs_no_onnx_and_is_lazy_about_it():
    offenders = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in PYTHON
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        if name.split(".")[0] == "onnx" and getattr(node, "level", 0) == 0
    ]
    assert offenders == [], "onnx is optional: import it where it is used"


# folder of csrc -> prefixes of what it may include with quotes
C_ARROWS = {
    "include": ("lgr/",),
    "common": ("lgr/", "common/"),
    "kernels": ("lgr/", "common/", "kernels/"),
    "platform": ("lgr/", "platform/"),
    "config": ("lgr/", "config/"),
    "ops": ("lgr/", "common/", "ops/", "kernels/"),
    "python": ("lgr/", "common/", "config/", "python/"),
    "tf": ("lgr/", "tf/"),
}
# angle-bracket include -> the only folder that may have it
EXCLUSIVE = {"yaml.h": "config", "Python.h": "python", "torch/": "ops", "cuda_runtime.h": "kernels"}
INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


@pytest.mark.parametrize("path", NATIVE, ids=lambda path: str(path.relative_to(ROOT)))
def test_includes_follow_the_arrows(path):
    folder = path.relative_to(CSRC).parts[0]
    assert folder in C_ARROWS, "give the new folder its row in C_ARROWS"
    for quoted, angled in INCLUDE.findall(path.read_text(encoding="utf-8")):
        if quoted:
            sibling = "/" not in quoted and (path.parent / quoted).exists()
            assert sibling or quoted.startswith(C_ARROWS[folder]), f"{path}: must not include {quoted!r}"
        for start, owner in EXCLUSIVE.items():
            if angled.startswith(start):
                assert folder == owner, f"{path}: only csrc/{owner} includes <{angled}>"
                assert path.suffix != ".cu", f"{path}: .cu files include no torch header"


DEVICE_HEADER = CSRC / "kernels" / "cuda" / "device.h"
CUDA = [path for path in NATIVE if path.suffix == ".cu" or path.parent == DEVICE_HEADER.parent]


@pytest.mark.parametrize("path", CUDA, ids=lambda path: str(path.relative_to(ROOT)))
def test_cuda_files_run_emulated_too(path):
    """What a C++ compiler does not read stands in one header, beside its emulation."""
    text = path.read_text(encoding="utf-8")
    if path == DEVICE_HEADER:
        return
    for word in ("<<<", "__shared__", "asm", "cuda_runtime.h", "__CUDA_ARCH__", "cudaGetLastError"):
        assert not re.search(rf"(?<!\w){re.escape(word)}", text), f"{path}: {word} belongs into {DEVICE_HEADER.name}"


@pytest.mark.parametrize("path", PYTHON + DOPT_PYTHON + NATIVE, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small_and_honest(path):
    text = path.read_text(encoding="utf-8")
    limit = 500 if path.suffix == ".py" else 350
    assert text.count("\n") <= limit, f"{path}: more than {limit} lines; split it by idea"
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text), f"{path}: unfinished business belongs into an issue"
    if path.suffix == ".py":
        assert not re.search(r"^\s*from \S+ import \*", text, re.MULTILINE)
    else:
        assert "-ffast-math" not in text


def test_no_twin_without_its_reference():
    for path in (p for p in NATIVE if p.suffix in {".c", ".cu"}):
        twin = re.fullmatch(r"(.+)_(sse41|avx2|avx512|avx512vnni|neon|dotprod|cuda)", path.stem)
        if twin:
            rest = [p for p in path.parent.glob("*.c") if not re.search(r"_(sse41|avx\w+|neon|dotprod)$", p.stem)]
            assert rest, f"{path}: the plain C reference comes first"
