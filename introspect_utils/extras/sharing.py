"""A trained explainer, or a data set that was made here, put on the hub with a card that says what
it is:

python -m introspect_utils.extras.sharing small RUN owner/name
"""

import argparse
import json
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from introspect_utils.runs.plan import find_run, plan
from introspect_utils.runs.run import Run, checkpoint
from introspect_utils.settings.errors import UserError, command
from introspect_utils.settings.names import MODELS, VARIANTS, variant
from introspect_utils.settings.paths import artifacts_dir, run_dir
from introspect_utils.settings.profile import Profile, load_profile

CARD = """---
{head}---
# {run}

{what}

Made by the companion of *Training Language Models to Explain Their Own Computations* (Li et al.,
arXiv 2511.08579): run `{run}` of the profile `{profile}`, commit `{commit}`.

{use}

## Settings

```json
{settings}
```
"""
LOAD = """    from huggingface_hub import snapshot_download
    from introspect_utils.explainer.explainer import Explainer

    explainer = Explainer.load(snapshot_download("{name}"))"""
READ = """    from datasets import load_dataset

    rows = load_dataset("{name}", split="test")"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m introspect_utils.extras.sharing",
        description="Put a run's explainer or data on the hub.",
    )
    parser.add_argument("profile")
    parser.add_argument("run", help="id of a run, as listed by ./run_all.sh PROFILE --dry-run")
    parser.add_argument("name", help="owner/name on the hub; made, private, where it is not there")
    asked = parser.parse_args()
    profile = load_profile(asked.profile)
    folder, kind = staged(profile, find_run(asked.run, plan(profile), profile), asked.name)
    print(push(folder, asked.name, kind))


def staged(profile: Profile, run: Run, name: str) -> tuple[Path, str]:
    """(folder, "model" or "dataset"): links to what a finished run made, with its card, ready to be
    put on the hub as `name`.

    Raises `UserError` when the run is not finished on this machine, or made neither an explainer
    nor Parquet files of rows.
    """
    artifacts = artifacts_dir(profile.name)
    record, trained = run_dir(profile.name, run.id) / "run.json", checkpoint(profile, run.id).parent
    kind = "model" if trained.is_dir() else "dataset"
    if kind == "model":
        files = [path for path in trained.iterdir() if path.is_file()]
    else:
        files = [p for p in run.outputs if p.suffix == ".parquet" and p.is_relative_to(artifacts)]
    if not record.is_file() or not files or not all(path.is_file() for path in files):
        raise UserError(
            f"{run.id} has no explainer and no rows here: choose a run of notebooks 02, 03 or 05 "
            "to 07, and run it"
        )
    folder = artifacts / "shared" / run.id
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        (folder / path.name).unlink(missing_ok=True)
        (folder / path.name).symlink_to(path)
    made = json.loads(record.read_text("utf-8"))
    head, what, use = (_explainer if kind == "model" else _rows)(run, made, files)
    about = {"run": run.id, "profile": profile.name, "commit": made["commit"], "what": what}
    about |= {"head": yaml.safe_dump(head, sort_keys=False), "use": use.format(name=name)}
    about |= {"settings": json.dumps(run.settings, indent=1)}
    (folder / "README.md").write_text(CARD.format(**about), "utf-8")
    return folder, kind


def _explainer(run: Run, made: dict, files: list[Path]) -> tuple[dict, str, str]:
    """Of a trained explainer its card's head, what it is, and how it is loaded."""
    target, explainer = run.parameters["target"], run.parameters["explainer"]
    base = target if variant(explainer)[0] in VARIANTS else explainer
    adapted = any(path.name == "adapter_config.json" for path in files)
    head = {"library_name": "peft" if adapted else "transformers"}
    head["tags"] = ["introspection", made["task"]]
    if base in MODELS and MODELS[base].hub:
        head["base_model"] = MODELS[base].hub
    what = (
        f"An explainer ({explainer}) of {target}, trained on {made['n_train']:,} rows of the task "
        f"{made['task']}; SHA-256 of its weights {made['checkpoint_sha256'][:16]}. The licence of "
        f"its base, {base}, applies."
    )
    return head, what, LOAD


def _rows(run: Run, made: dict, files: list[Path]) -> tuple[dict, str, str]:
    """Of rows the card's head, what they are, and how they are loaded."""
    splits = [{"split": path.stem, "path": path.name} for path in files]
    counts = ", ".join(f"{pq.read_metadata(path).num_rows:,} {path.stem}" for path in files)
    about = f"the task {made['task']} on {run.parameters['target']}"
    what = f"Questions and true answers of {about}: {counts} rows."
    columns = ", ".join(pq.read_schema(files[0]).names)
    head = {"configs": [{"config_name": "default", "data_files": splits}]}
    return head, what, f"{READ}\n\nColumns: {columns}."


def push(folder: Path, name: str, kind: str) -> str:
    """Put a folder on the hub as the model or data set `name`, private where it is new; its
    address.

    Raises `UserError` when the hub cannot be reached or refuses.
    """
    from httpx2 import HTTPError  # of the hub's client
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    try:
        HfApi().create_repo(name, repo_type=kind, private=True, exist_ok=True)
        return HfApi().upload_folder(repo_id=name, repo_type=kind, folder_path=folder).commit_url
    except (HTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"cannot put {name} on the hub ({reason}): check the name, HF_TOKEN and the network"
        ) from error


if __name__ == "__main__":
    command(main)
