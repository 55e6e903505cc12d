"""The arguments of `./run_all.sh`: parts of a profile, GPUs elsewhere, and those of Snakemake."""

import argparse
import os
import re

from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import (
    WITH,
    WITHOUT,
    Profile,
    is_optional,
    load_profile,
    parts_of,
)
from introspect_utils.settings.reading import nearest

BYTES_OF_A_GB = 1.06e9  # of the GPUs with HBM: one that is sold as 80 GB has 84.9e9


def chosen_parts(profile: Profile, extra: list[str]) -> tuple[Profile, list[str]]:
    """The profile with the optional parts that --with names and without those of --without, here
    and in every process that is started from here, and the other arguments. Raises `UserError` for
    a name that is no such part."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--without", nargs="+", default=[])
    parser.add_argument("--with", nargs="+", default=[], dest="optional")
    own, extra = parser.parse_known_args(extra)
    parts = {part.source for part in profile.parts}
    optional = [name for name in parts_of(profile.source) if is_optional(name)]
    for names, known, kind in (
        (own.optional, optional, "optional part"),
        (own.without, sorted({*parts, *own.optional}), "part"),
    ):
        for name in names:
            if name not in known:
                near = nearest(name, known) if known else "it has none"
                raise UserError(f"profile {profile.name} has no {kind} {name!r}; {near}")
    if not own.without and not own.optional:
        return profile, extra
    os.environ[WITHOUT], os.environ[WITH] = " ".join(own.without), " ".join(own.optional)
    return load_profile(profile.source), extra


def described_gpus(extra: list[str]) -> tuple[list[float], list[str]]:
    """The bytes of each GPU that --gpus describes ("2x80": two that are sold as 80 GB), and the
    other arguments. Raises `UserError` for another form."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--gpus", default="")
    own, extra = parser.parse_known_args(extra)
    if not own.gpus:
        return [], extra
    if not (form := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", own.gpus)):
        raise UserError(f"--gpus {own.gpus}: number x GB is expected, for example 2x80")
    return [int(form[2]) * BYTES_OF_A_GB] * int(form[1]), extra


def snakemake_options(extra: list[str]) -> argparse.Namespace:
    """The extra arguments as Snakemake reads them. Raises `UserError` for one that it does not
    know."""
    from snakemake.cli import get_argument_parser

    def refuse(message: str):
        raise UserError(f"{message} (extra arguments go to Snakemake)")

    def parsed(profile=None) -> argparse.Namespace:
        parser = get_argument_parser(profile)
        parser.error = refuse
        return parser.parse_args(extra)

    options = parsed()
    # Snakemake's own profile is a folder with a config.yaml of such arguments.
    return parsed(options.profile) if options.profile else options
