"""Strict reading of YAML settings: no duplicate keys, and errors that name the file, the key and the allowed values."""

import difflib
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from hodor.errors import HodorError

Model = TypeVar("Model")


class Strict(BaseModel):
    """Base class of the models of settings files: no unknown keys, and no infinite, negative or huge numbers."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false for a number, of which pydantic would make 1 and 0."""
        given = value if isinstance(value, list) else [value]
        if any(isinstance(one, bool) for one in given):
            annotation = cls.model_fields[str(info.field_name)].annotation
            if "bool" not in str(annotation) and annotation is not Any:
                raise ValueError("must not be true or false")
        return value

    @field_validator("*")
    @classmethod
    def _plausible(cls, value: Any) -> Any:
        for number in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(number, (int, float)) and not 0 <= number < 2**31:
                raise ValueError("must be at least 0 and below 2^31")
        return value


def known_in(registry: Mapping[str, Any]) -> Any:
    """Return the type of a key of a registry, to which extensions or the user's data sets add entries."""

    def check(value: str) -> str:
        if value not in registry:
            raise PydanticCustomError("none_of", "{fault}", {"fault": none_of(value, list(registry))})
        return value

    # Editors complete these names and accept others.
    names = {"anyOf": [{"enum": list(registry)}, {"type": "string"}]}
    return Annotated[str, AfterValidator(check), WithJsonSchema(names)]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """SafeLoader that rejects duplicate keys, of which YAML silently keeps the last."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *other`
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a name", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, name: str) -> dict[str, Any]:
    """Read the mapping in a YAML file; HodorError for any fault names the file `name`."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise HodorError(f"{name}: no such file; restore it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise HodorError(f"{name}: cannot be read ({error}); save it as UTF-8 text") from error
    except ValueError as error:  # a date that does not exist
        raise HodorError(f"{name}: {error}; correct the value, or put it in quotes") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise HodorError(f"{name}{where}: {getattr(error, 'problem', None) or error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise HodorError(f"{name}: must hold keys with values, not a {type(content).__name__}")
    return content


def validate(model: type[Model], content: Any, name: str, at: str = "") -> Model:
    """Validate `content` as an instance of `model`; HodorError lists every fault on a line of its own.

    Args:
        model: the pydantic model or dataclass.
        content: parsed content of a settings file, or a part of it.
        name: name of the file in errors.
        at: dotted key of `content` in the file.
    """
    try:
        return TypeAdapter(model).validate_python(content)
    except ValidationError as error:
        raise HodorError("\n".join(_fault(model, fault, name, at) for fault in error.errors())) from None


def none_of(value: object, allowed: Sequence[str]) -> str:
    """Return a message such as `'minni' is none of tiny, mini`; of many names it repeats the nearest."""
    text = f"'{value}' is none of {', '.join(allowed) or '(none defined)'}"
    near = difflib.get_close_matches(str(value), allowed, n=3) if len(allowed) > 5 else []
    return text + (f"; nearest: {', '.join(near)}" if near else "")


def _fault(model: type, fault: ErrorDetails, name: str, at: str) -> str:
    place = [str(part) for part in fault["loc"] if part != "[key]"]
    key = ".".join(filter(None, [at, *place]))
    if fault["type"] == "extra_forbidden":
        allowed = _fields(model, fault["loc"][:-1])
        return f"{name}: {key}: unknown key, {none_of(place[-1], allowed)}"
    if fault["type"] == "missing":
        return f"{name}: {key}: missing"
    if fault["type"] == "literal_error":
        return f"{name}: {key}: '{fault['input']}' is none of {fault['ctx']['expected'].replace(chr(39), '')}"
    message = fault["msg"].removeprefix("Value error, ")
    given = "" if isinstance(fault["input"], dict) or fault["type"] == "none_of" else f" (given: {fault['input']!r})"
    return f"{name}: {key + ': ' if key else ''}{message}{given}"


def _fields(model: type, place: tuple) -> list[str]:
    """Return the field names of the model at `place` below `model`."""
    annotation: Any = model
    for part in place:
        annotation = _model_in(annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and part in annotation.model_fields:
            annotation = annotation.model_fields[part].annotation
    annotation = _model_in(annotation)
    return list(annotation.model_fields) if annotation else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the first pydantic model inside an annotation such as `dict[str, Model] | None`."""
    if isinstance(annotation, type) and not get_origin(annotation) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, dict, list, tuple):
        return next(filter(None, map(_model_in, get_args(annotation))), None)
    return None
