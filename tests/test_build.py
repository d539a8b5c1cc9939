"""The extension and its build: one binary for all, no hidden dependencies, errors in one sentence."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import torch

import linger
from linger import _C

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = Path(_C.__file__)


def run(*command: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )


def symbols(*flags: str) -> str:
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed")
    return run("nm", "-D", *flags, LIBRARY).stdout


def test_the_extension_is_abi3_and_knows_its_version():
    assert LIBRARY.name == "_C.abi3.so"
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert f'\nversion = "{_C.__version__}"\n' in pyproject


def test_only_the_entry_point_is_exported():
    names = re.findall(r" [TWBD] (\S+)$", symbols("--defined-only"), re.MULTILINE)
    own = [name for name in names if "yaml" in name or name.startswith(("lgr_", "PyInit"))]
    assert own == ["PyInit__C"]


def test_no_private_python_symbol_is_used():
    """The Limited API has no names that begin with _Py, but for those its macros need."""
    used = set(re.findall(r" U (_?Py\w+)", symbols("--undefined-only")))
    assert used
    stable = {
        "_Py_Dealloc",
        "_Py_NoneStruct",
        "_Py_TrueStruct",
        "_Py_BuildValue_SizeT",
        "_PyArg_ParseTuple_SizeT",
        "_PyArg_ParseTupleAndKeywords_SizeT",
    }
    assert {name for name in used if name.startswith("_Py")} <= stable


def test_the_extension_needs_torch_cpu_only():
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    needed = re.findall(r"NEEDED.*\[(.+)\]", run("readelf", "-d", LIBRARY).stdout)
    assert [name for name in needed if "torch" in name] == ["libtorch_cpu.so"]
    assert not [name for name in needed if re.search(r"python|cuda|c10|yaml", name)]


def test_cpu_flags_are_detected_and_can_be_masked():
    detected = _C.set_cpu_mask(0xFFFFFFFF)
    try:
        assert all(flag & (flag - 1) == 0 for flag in _C.CPU_FLAGS.values())
        assert detected & ~sum(_C.CPU_FLAGS.values()) == 0
        assert _C.set_cpu_mask(0) == _C.cpu_flags() == 0
        for flag in _C.CPU_FLAGS.values():
            assert _C.set_cpu_mask(flag) == detected & flag
    finally:
        assert _C.set_cpu_mask(0xFFFFFFFF) == detected
    with pytest.raises(TypeError):
        _C.set_cpu_mask("avx2")


def test_import_changes_nothing_in_torch_and_starts_no_cuda():
    code = (
        "import torch, gc; before = {k: id(v) for m in (torch, torch.nn, torch.nn.functional, torch.Tensor, torch.onnx, "
        "torch.nn.Module) for k, v in vars(m).items()}; state = torch.random.get_rng_state(); import linger; "
        "after = {k: id(v) for m in (torch, torch.nn, torch.nn.functional, torch.Tensor, torch.onnx, torch.nn.Module) "
        "for k, v in vars(m).items()}; "
        "assert {k for k in before if before[k] != after.get(k)} == set(), 'changed'; "
        "assert torch.equal(state, torch.random.get_rng_state()); assert not torch.cuda.is_initialized(); "
        "import sys; assert 'onnx' not in sys.modules"
    )
    result = run(sys.executable, "-W", "error", "-c", code)
    assert result.returncode == 0, result.stderr


def test_py_typed_and_stub_are_beside_the_package():
    assert (Path(linger.__file__).parent / "py.typed").exists()
    stub = (Path(linger.__file__).parent / "_C.pyi").read_text()
    for name in (name for name in dir(_C) if not name.startswith("__")):
        assert re.search(rf"(def|class) {name}\b|^{name}:", stub, re.MULTILINE), name


def build(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "setup.py", "-q", "build_ext", "--build-lib", tmp_path, **{"LINGER_CUDA": "0", **env})


def path_without(tmp_path: Path, *names: str) -> str:
    """A PATH folder with everything that the usual ones have, but for some programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for place in reversed(os.environ["PATH"].split(os.pathsep)):
        for program in Path(place).glob("*") if Path(place).is_dir() else ():
            link = folder / program.name
            if program.name not in names:
                link.unlink(missing_ok=True)
                link.symlink_to(program)
    return str(folder)


def sentence(result: subprocess.CompletedProcess[str]) -> str:
    """The build's last line; there must be no traceback."""
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def test_without_a_compiler_one_sentence_says_what_to_install(tmp_path):
    assert "no C compiler (no-such-cc); install one" in sentence(build(tmp_path, CC="no-such-cc"))
    assert "no C++ compiler (no-such-c++); install one" in sentence(build(tmp_path, CXX="no-such-c++"))


def test_without_libyaml_one_sentence_says_what_to_install(tmp_path):
    if sys.platform != "linux" or Path(sysconfig.get_path("include"), "yaml.h").exists():
        pytest.skip("cannot hide yaml.h here")
    (tmp_path / "yaml.h").write_text("#error hidden by the test\n")
    assert "libyaml is missing (yaml.h)" in sentence(build(tmp_path, CFLAGS=f"-I{tmp_path}"))


def test_without_torch_or_with_an_old_one_a_sentence_says_what_to_install(tmp_path):
    fake = tmp_path / "torch"
    fake.mkdir()
    (fake / "__init__.py").write_text("")
    (fake / "version.py").write_text("__version__ = '2.9.1+cpu'\n")
    said = sentence(build(tmp_path, PYTHONPATH=str(tmp_path)))
    assert "torch 2.9.1+cpu is too old, 2.10 or newer is needed; install it with: pip install torch" in said
    code = (
        "import importlib.util as u, sys; f = u.find_spec; "
        "u.find_spec = lambda n, *a: None if n == 'torch' else f(n, *a); "
        f"sys.argv = ['setup.py', '-q', 'build_ext', '--build-lib', {str(tmp_path)!r}]; "
        "exec(compile(open('setup.py').read(), 'setup.py', 'exec'), {'__file__': 'setup.py', '__name__': '__main__'})"
    )
    said = sentence(run(sys.executable, "-c", code, LINGER_CUDA="0"))
    assert "the build needs torch 2.10 or newer; install it with: pip install torch" in said


def test_with_an_old_setuptools_one_sentence_says_what_to_install(tmp_path):
    """setuptools 66.1.1 is Debian 12's; it would print pages about the licence in pyproject.toml."""
    code = (
        "import setuptools, sys; setuptools.__version__ = '66.1.1'; "
        f"sys.argv = ['setup.py', 'egg_info', '-e', {str(tmp_path)!r}]; "
        "exec(compile(open('setup.py').read(), 'setup.py', 'exec'), {'__file__': 'setup.py', '__name__': '__main__'})"
    )
    result = run(sys.executable, "-c", code)
    said = "linger: setuptools 66.1.1 is too old, 77 or newer is needed; install it with: pip install 'setuptools>=77'"
    assert sentence(result) == said and len(result.stderr.strip().splitlines()) == 1


@pytest.fixture
def skeleton(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A copy of what a build reads, and the variables of a compiler that only makes empty files."""
    fake = tmp_path / "cc"
    fake.write_text("""#!/bin/sh
case "$1" in -print-file-name=*) echo /libyaml.a; exit;; esac
while [ $# -gt 1 ]; do
    [ "$1" = -o ] && : > "$2"
    [ "$1" = -MF ] && echo x: > "$2"
    shift
done
""")
    fake.chmod(0o755)
    copy = tmp_path / "copy"
    for folder in ("common", "config", "python"):
        shutil.copytree(ROOT / "csrc" / folder, copy / "csrc" / folder)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for package in ("linger", "linger/nn", "dopt", "dopt/dopt_tf", "tests"):
        (copy / package).mkdir()
        (copy / package / "__init__.py").touch()
    return copy, {**os.environ, "CC": str(fake), "CXX": str(fake), "LINGER_CUDA": "0"}


def test_the_build_says_how_far_it_is(skeleton, tmp_path):
    copy, env = skeleton
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("linger: ")]
    assert re.fullmatch(r"linger: 1/(\d+) compiling csrc/\S+", lines[0])
    assert any(re.fullmatch(r"linger: (\d+)/\1 compiling csrc/\S+", line) for line in lines)
    assert "linger: linking _C.abi3.so" in lines


def test_an_editable_install_is_a_path_that_type_checkers_read(skeleton, tmp_path):
    """A finder written in Python, setuptools' other way, is code that pyright and pylance do not run."""
    copy, env = skeleton
    code = f"from setuptools.build_meta import build_editable; print(build_editable({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=copy, env=env, capture_output=True, text=True, check=True)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        outside = [name for name in archive.namelist() if ".dist-info/" not in name]
        assert outside == [f"__editable__.linger_qat-{_C.__version__}.pth"]
        assert Path(archive.read(outside[0]).decode().strip()).resolve() == copy.resolve()


def test_metadata_is_complete_and_names_what_can_be_installed():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == "linger-qat"
    assert {"onnx", "numpy"} <= set(project["dependencies"])
    for key in ("authors", "license", "description", "readme", "keywords", "classifiers"):
        assert project[key], key
    extras = [item for listed in project["optional-dependencies"].values() for item in listed]
    assert not [item for item in extras if item.startswith("linger[")]
    texts = [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("linger/**/*.py"),
        *ROOT.glob("dopt/**/*.py"),
    ]
    hints = {path.name: re.findall(r"pip install '?linger\b(?!-qat)", path.read_text()) for path in texts}
    assert not {name for name, found in hints.items() if found}


def test_cuda_without_nvcc_is_one_sentence(tmp_path):
    path = path_without(tmp_path, "nvcc")
    assert "LINGER_CUDA=1 needs nvcc" in sentence(build(tmp_path, LINGER_CUDA="1", PATH=path))
    assert "LINGER_CUDA must be auto, 0 or 1" in sentence(build(tmp_path, LINGER_CUDA="yes"))


def test_torch_is_new_enough():
    assert tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 10)


def blocks(readme: str) -> list[str]:
    return re.findall(r"```\w*\n.*?```", (ROOT / readme).read_text(encoding="utf-8"), re.DOTALL)


def test_readme_starts_with_the_two_commands():
    assert blocks("README.md")[0] == "```sh\nmake demo\nmake test\n```"


def test_the_chinese_readme_has_the_same_blocks_and_headings():
    assert blocks("README.zh.md") == blocks("README.md")
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
    assert english.count("\n## ") == chinese.count("\n## ") and english.count("\n\n") == chinese.count("\n\n")
    assert set(re.findall(r"`[^`\n]+`", english)) == set(re.findall(r"`[^`\n]+`", chinese))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    result = run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ".")
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_fits_all_pythons_and_holds_only_the_package(wheel):
    assert re.fullmatch(rf"linger_qat-{_C.__version__}-cp310-abi3-linux_\w+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert {"linger/_C.abi3.so", "linger/_C.pyi", "linger/py.typed"} <= set(names)
        assert not [name for name in names if name.endswith((".c", ".h", ".cpp", ".cu")) or name.startswith("tests")]
        assert not [name for name in names if not name.startswith(("linger/", "linger_qat-", "dopt/"))]
        assert {"dopt/dopt_tf/_ops.so", "dopt/dopt_torch/opt_main.py", "dopt/py.typed"} <= set(names)


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "import linger; linger.config_save_to_yaml('c.yaml'); print(linger.__file__)"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert str(tmp_path) in result.stdout


@pytest.mark.slow
def test_a_wheel_refuses_the_shared_libyaml(tmp_path):
    """A compiler that does not find libyaml.a stands for a machine that has only the shared library."""
    fake = tmp_path / "cc"
    fake.write_text('#!/bin/sh\ncase "$1" in -print-file-name=*) echo "${1#*=}";; *) exec cc "$@";; esac\n')
    fake.chmod(0o755)
    result = run(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, ".", CC=str(fake)
    )
    assert result.returncode != 0
    assert "a wheel needs the static libyaml.a" in result.stdout + result.stderr
