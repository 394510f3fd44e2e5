"""JSON schema of all settings files: `python -m hodor.config.json_schema config/schema.json` (`make schema`) writes it."""

import sys
from typing import Any

from pydantic import BaseModel

from hodor.config.claims import Claims
from hodor.config.methods import METHODS
from hodor.config.schema import Rows, Scale, Settings
from hodor.config.servers import Servers, ServerScores
from hodor.provenance import write_json_atomic


def schema() -> dict[str, Any]:
    """JSON schema of all settings files (config/schema.json), for editors; `make schema` writes it."""
    definitions: dict[str, Any] = {}

    def add(model: type[BaseModel], title: str) -> dict[str, str]:
        content = model.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(content.pop("$defs", {}))
        definitions[title] = content
        return {"$ref": f"#/$defs/{title}"}

    methods = {name: add(entry.options, f"methods.{name}") for name, entry in METHODS.items() if entry.options}
    files = {
        "config.yaml": add(Settings, "Settings"),
        "rows.yaml": add(Rows, "Rows"),
        "claims.yaml": add(Claims, "Claims"),
        "scales/*.yaml": add(Scale, "Scale"),
        "servers.yaml": add(Servers, "Servers"),
        "server_scores.yaml": add(ServerScores, "ServerScores"),
    }
    definitions["Scale"]["properties"]["methods"]["properties"] = methods
    # A stage of a file may leave out what it takes over from another (`hodor.config.overrides`).
    stage = definitions["StageOptions"]
    like = {"description": "the stage whose settings it has where it states none", "type": "string"}
    definitions["StageLike"] = {
        "additionalProperties": False,
        "properties": {"like": like, **stage["properties"]},
        "required": ["like"],
        "type": "object",
    }
    either = [{"$ref": f"#/$defs/{name}"} for name in ("StageOptions", "StageLike")]
    definitions["Scale"]["properties"]["stages"]["additionalProperties"] = {"anyOf": either}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The settings files of this folder",
        "type": "object",
        "properties": files,
        "$defs": dict(sorted(definitions.items())),
    }


if __name__ == "__main__":
    write_json_atomic(sys.argv[1], schema())
