"""``python -m kdlab``: the same as the command ``kdlab``."""

import sys

from kdlab.cli.main import main

sys.exit(main())
