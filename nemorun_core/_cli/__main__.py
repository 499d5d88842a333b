"""`python -m nemorun_core._cli`, where the command is not on the PATH."""

import sys

from nemorun_core._cli.entry import main

sys.exit(main())
