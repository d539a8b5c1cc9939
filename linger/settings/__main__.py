"""Print docs/guide/configuration.md, or with the argument zh docs/zh/guide/configuration.md."""

import sys

from .document import configuration_page

sys.stdout.write(configuration_page(*sys.argv[1:]))
