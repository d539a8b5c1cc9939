"""Installs the wheel into fresh environments of every Python from 3.10 that is here and runs `smoke.py` in each.

    python tests/wheel/run.py WHEEL [torch==2.13.0]

A Python for which the index has no such torch is named. Fails where a smoke test fails, or where none could run.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def pythons():
    """Every interpreter from 3.10 in PATH or among pyenv's, the newest first, each version once."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders = [*map(Path, os.environ["PATH"].split(os.pathsep)), *pyenv.glob("versions/*/bin")]
    code = "import sys, sysconfig; print(*sys.version_info[:2], sysconfig.get_config_var('Py_GIL_DISABLED') or 0)"
    found = {}
    for folder in folders:
        for path in sorted(folder.glob("python3*")):
            if re.fullmatch(r"python3(\.\d+)?", path.name):
                said = run(path, "-c", code).stdout.split()
                if len(said) == 3 and int(said[1]) >= 10 and said[2] == "0":
                    found.setdefault((3, int(said[1])), path)
    return sorted(found.items(), reverse=True)


def run(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)


def in_reach(own, torch):
    """What stands in the way of this torch for an environment; empty: nothing."""
    pip = (own, "-m", "pip", "--disable-pip-version-check", "install")
    found = run(*pip, "-q", "--dry-run", "--no-deps", "--report", "-", torch)
    if found.returncode:
        return next((line for line in found.stderr.splitlines() if line.startswith("ERROR")), found.stderr.strip())
    needs = json.loads(found.stdout)["install"][0]["metadata"].get("requires_dist", [])
    gpu = [need.split()[0] for need in needs if need.startswith(("nvidia", "cuda"))]
    if gpu and "LINGER_TEST_GPU_TORCH" not in os.environ:
        return f"only the build for GPUs, with {len(gpu)} more packages of gigabytes; LINGER_TEST_GPU_TORCH=1 takes it"
    return ""


def outcome(name, python, wheel, torch, folder):
    """None: this Python cannot have that torch; else whether the smoke test passed. Says which."""
    made = run(python, "-m", "venv", folder)
    if made.returncode:
        print(f"{name}: no environment: {(made.stdout + made.stderr).strip().splitlines()[-1]}")
        return None
    own = folder / "bin" / "python"
    missing = in_reach(own, torch)
    if missing:
        print(f"{name}: {torch}: {missing}")
        return None
    got = run(own, "-m", "pip", "install", "-q", "--disable-pip-version-check", torch, wheel)
    if got.returncode:
        print(f"{name}: {torch} and the wheel cannot be installed: {got.stderr.strip().splitlines()[-1]}")
        return False
    empty = folder / "empty"
    empty.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    smoke = shutil.copy(HERE / "smoke.py", empty)
    done = run(own, smoke, cwd=empty, env={**kept, "PATH": str(empty)})
    print(f"{name}: {(done.stdout if done.returncode == 0 else done.stdout + done.stderr).strip()}")
    return done.returncode == 0


def main():
    wheel, torch = Path(sys.argv[1]).resolve(), (sys.argv[2:] or ["torch==2.13.0"])[0]
    outcomes = []
    for version, python in pythons():
        with tempfile.TemporaryDirectory() as folder:
            name = "python{}.{}".format(*version)
            outcomes.append(outcome(name, python, wheel, torch, Path(folder) / "env"))
    tried = [o for o in outcomes if o is not None]
    print(f"{sum(tried)} of {len(tried)} Pythons passed, {len(outcomes) - len(tried)} without {torch}")
    return 0 if tried and all(tried) else 1


if __name__ == "__main__":
    raise SystemExit(main())
