"""Writes config/schema.json: `python -m hodor.schema config/schema.json` (`make schema`)."""

import sys

from hodor.config import schema
from hodor.provenance import write_json_atomic

if __name__ == "__main__":
    write_json_atomic(sys.argv[1], schema())
