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


def test_cuda_without_nvcc_is_one_sentence(tmp_path):
    path = path_without(tmp_path, "nvcc")
    assert "LINGER_CUDA=1 needs nvcc" in sentence(build(tmp_path, LINGER_CUDA="1", PATH=path))
    assert "LINGER_CUDA must be auto, 0 or 1" in sentence(build(tmp_path, LINGER_CUDA="yes"))


def test_torch_is_new_enough():
    assert tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 10)


def test_readme_starts_with_the_two_commands():
    first = re.search(r"```\w*\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert first is not None
    assert first[1].split("\n") == ["make demo", "make test", ""]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    result = run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ".")
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_fits_all_pythons_and_holds_only_the_package(wheel):
    assert re.fullmatch(rf"linger-{_C.__version__}-cp310-abi3-linux_\w+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert {"linger/_C.abi3.so", "linger/_C.pyi", "linger/py.typed"} <= set(names)
        assert not [name for name in names if name.endswith((".c", ".h", ".cpp", ".cu")) or name.startswith("tests")]
        assert not [name for name in names if not name.startswith(("linger/", "linger-", "dopt/"))]
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
