"""YAML read into frozen dataclasses: every mistake is named with its place, a near miss with what
was meant."""

import difflib
import math
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

OPTIONAL = (UnionType, Union)  # `X | None`; where X is Annotated, it is the second


def nearest(name: object, valid: list[str]) -> str:
    """`(did you mean X?)` for a near miss, else the valid names."""
    close = difflib.get_close_matches(str(name), valid, n=1)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(sorted(valid))}"


def read_dataclass(kind: type, value: Any, at: str, mistakes: list[str], **given: Any) -> Any:
    """An instance of the dataclass `kind` from the mapping `value` found at the dotted key `at`;
    `None` after a mistake."""
    if not isinstance(value, dict):
        mistakes.append(f"{at or 'the file'}: must be settings (key: value), got {_shown(value)}")
        return None
    types = get_type_hints(kind, include_extras=True)
    keys = [field.name for field in fields(kind) if field.name not in given]
    dotted = {key: f"{at}.{key}" if at else str(key) for key in [*keys, *value]}
    unknown = [key for key in value if key not in keys]
    mistakes += [f"{dotted[key]}: unknown setting; {nearest(key, keys)}" for key in unknown]
    optional = {key: None for key in keys if get_origin(types[key]) in OPTIONAL}
    missing = [key for key in keys if key not in value and key not in optional]
    mistakes += [f"{dotted[key]}: missing" for key in missing]
    before, there = len(mistakes), [key for key in keys if key in value]
    settings = {key: _read(types[key], value[key], dotted[key], mistakes) for key in there}
    whole = len(mistakes) == before and not missing
    return kind(**optional | settings, **given) if whole else None


def _read(kind: Any, value: Any, at: str, mistakes: list[str]) -> Any:
    """`value` as the type `kind`; what is wrong with it is added to `mistakes`."""
    if is_dataclass(kind):
        return read_dataclass(kind, value, at, mistakes)
    origin, arguments = get_origin(kind), get_args(kind)
    wrong = None
    if origin in OPTIONAL:
        value = _read(arguments[0], value, at, mistakes)
    elif origin is dict:
        if not isinstance(value, dict):
            wrong = f"must be settings (key: value), got {_shown(value)}"
        elif arguments[1] is not Any:
            items = value.items()
            value = {key: _read(arguments[1], x, f"{at}.{key}", mistakes) for key, x in items}
    elif origin is tuple:
        if not isinstance(value, list) or not (value or arguments[0] is str):
            wrong = f"must be a list with at least one item, got {_shown(value)}"
        else:
            items = enumerate(value)
            value = tuple(_read(arguments[0], item, f"{at}[{i}]", mistakes) for i, item in items)
            if len(set(value)) < len(value) and None not in value:
                wrong = "names the same thing twice"
    elif origin is Annotated:
        before = len(mistakes)
        value = _read(arguments[0], value, at, mistakes)
        wrong = arguments[1](value) if len(mistakes) == before else None
    elif origin is Literal:
        if value not in arguments:
            wrong = f"got {_shown(value)}; {nearest(value, list(arguments))}"
    elif kind is float and type(value) is int:
        value = float(value)
    elif type(value) is not kind or (kind is float and not math.isfinite(value)):
        wrong = f"must be {_WORDS[kind]}, got {_shown(value)}"
        if kind is float and isinstance(value, str) and "e" in value:
            wrong += " (YAML reads 1e-3 as text: write 1.0e-3)"
    if wrong:
        mistakes.append(f"{at}: {wrong}")
    return None if wrong else value


_WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)


class UniqueKeys(yaml.SafeLoader):
    """YAML in which a key given twice is an error, not silently the last one."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise yaml.YAMLError(f"{key} is given twice{node.value[i][0].start_mark}")
        return super().construct_mapping(node, deep)
