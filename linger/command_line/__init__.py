"""``linger``, the command: what can be asked of files, without a script."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from .commands import COMMANDS, Answer

__all__ = ["main"]

_WRONG_USE = 2
_EXIT_CODES = (
    "exit codes: 0 all is well, 1 the answer is no (errors found, integers differ), 2 wrong use or an unreadable file"
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence, with the nearest command where one was mistyped."""
        self.exit(_WRONG_USE, f"{self.prog}: {message}\n{self.format_usage()}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("linger", description="Quantization-aware training for integer chips: files.", epilog=_EXIT_CODES)
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for command in COMMANDS:
        sub = subparsers.add_parser(command.name, help=command.help, description=command.help, epilog=_EXIT_CODES)
        command.arguments(sub)
        sub.add_argument("--json", action="store_true", help="print the answer as JSON")
        sub.set_defaults(run=command.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Words behind ``linger``; None: those of the process.

    Returns:
        The exit code: 0, 1 where the answer is no, 2 where the question makes no sense or a file cannot be read.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    names = [command.name for command in COMMANDS]
    if words and not words[0].startswith("-") and words[0] not in names:
        near = difflib.get_close_matches(words[0], names, 1)
        meant = f"; did you mean '{near[0]}'?" if near else ""
        sys.stderr.write(f"linger: there is no command {words[0]!r}{meant} The commands are {', '.join(names)}\n")
        return _WRONG_USE
    try:
        options = parser.parse_args(words)
    except SystemExit as stop:
        return int(stop.code or 0)
    if options.version:
        from linger._C import __version__

        sys.stdout.write(f"linger {__version__}\n")
        return 0
    if options.command is None:
        parser.print_help()
        return _WRONG_USE
    try:
        answer: Answer = options.run(options)
    except (OSError, ValueError, TypeError, LookupError, ImportError, RuntimeError, NotImplementedError) as error:
        said = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.filename is not None:
            said = f"cannot read {os.fspath(error.filename)!r}: {error.strerror}"
        if options.json:
            sys.stdout.write(json.dumps({"error": said}) + "\n")
        sys.stderr.write(f"linger {options.command}: {said}\n")
        return _WRONG_USE
    try:
        sys.stdout.write(json.dumps(answer.data, indent=2, default=str) + "\n" if options.json else f"{answer.text}\n")
        sys.stdout.flush()
    except BrokenPipeError:  # `linger ... | head`
        sys.stderr.close()
    return 0 if answer.ok else 1
