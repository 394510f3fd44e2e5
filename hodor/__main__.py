"""`python -m hodor`: the same as the command `hodor`."""

import sys

from hodor.cli.main import main

sys.exit(main())
