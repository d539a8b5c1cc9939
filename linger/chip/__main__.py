"""Print docs/operators.md."""

import sys

from .document import operators_page

sys.stdout.write(operators_page())
