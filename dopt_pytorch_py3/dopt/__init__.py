"""What ``sys.path.append(".../dopt_*_py3")`` of the users' document finds in a checkout: the package two folders up."""

from pathlib import Path

_home = Path(__file__).resolve().parents[2] / "dopt"
__path__ = [str(_home)]
exec(compile((_home / "__init__.py").read_text(encoding="utf-8"), str(_home / "__init__.py"), "exec"))
