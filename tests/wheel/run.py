"""Installs the wheel into fresh environments of every Python from 3.10 that is in PATH and runs `smoke.py` in each.

    python tests/wheel/run.py WHEEL [torch==2.13.0]

A Python for which the index has no such torch is named. Fails where a smoke test fails, or where none could run.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def pythons():
    """The newest names first: (version, path) of every interpreter, each once."""
    found = {}
    for folder in os.environ["PATH"].split(os.pathsep):
        for path in sorted(Path(folder).glob("python3*")):
            if re.fullmatch(r"python3(\.\d+)?", path.name):
                code = "import sys, sysconfig; print(*sys.version_info[:2], sysconfig.get_config_var('Py_GIL_DISABLED') or 0)"
                said = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False).stdout.split()
                if len(said) == 3 and int(said[1]) >= 10 and said[2] == "0":
                    found.setdefault((3, int(said[1])), path)
    return sorted(found.items(), reverse=True)


def run(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)


def outcome(python, wheel, torch, folder):
    """None: this Python cannot have that torch; else whether the smoke test passed. Says which."""
    name = python.name
    made = run(python, "-m", "venv", folder)
    if made.returncode:
        print(f"{name}: no environment: {(made.stdout + made.stderr).strip().splitlines()[-1]}")
        return None
    own = folder / "bin" / "python"
    got = run(own, "-m", "pip", "install", "-q", "--disable-pip-version-check", torch, wheel)
    if got.returncode:
        errors = [line for line in got.stderr.splitlines() if line.startswith("ERROR")]
        print(f"{name}: {torch} and the wheel cannot be installed: {errors[-1] if errors else got.stderr.strip()}")
        return None if errors and "torch" in errors[-1] else False
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
    for _, python in pythons():
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(outcome(python, wheel, torch, Path(folder) / "env"))
    tried = [o for o in outcomes if o is not None]
    print(f"{sum(tried)} of {len(tried)} Pythons passed, {len(outcomes) - len(tried)} without {torch}")
    return 0 if tried and all(tried) else 1


if __name__ == "__main__":
    raise SystemExit(main())
