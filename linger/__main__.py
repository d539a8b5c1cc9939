"""``python -m linger``: the same as the command ``linger``."""

import sys

from linger.command_line import main

sys.exit(main())
