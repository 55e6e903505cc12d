"""What comes trained with the repository: `pretrained/<profile>/`, laid out as
`artifacts/<profile>/`, so that notebook 13 answers in a fresh clone and no run trains anew what is
there.

    python -m introspect_utils.runs.pretrained small RUN ...

puts there what these finished runs made.
"""

import argparse
import json
import shutil
from filecmp import cmp
from pathlib import Path

from introspect_utils.runs.due import due, heavy_outputs
from introspect_utils.runs.plan import find_run, plan
from introspect_utils.runs.run import Run
from introspect_utils.settings.errors import UserError, command
from introspect_utils.settings.paths import MEANS, REPO, artifacts_dir, replaced
from introspect_utils.settings.profile import Profile, load_profile

PRETRAINED = REPO / "pretrained"
LEFT = {".jsonl", ".md"}  # of a checkpoint's folder: answers so far, and a card without words
WEIGHTS = {"adapter_model.safetensors", "projection.safetensors"}  # of an explainer, in bfloat16


def restore(profile: Profile) -> list[str]:
    """Put what came with the repository under artifacts/, for each run of which nothing lies there;
    the ids of these runs. What a run was made from comes too, so that other settings make it due as
    ever."""
    kept, artifacts, restored = PRETRAINED / profile.name, artifacts_dir(profile.name), []
    for run in plan(profile) if kept.is_dir() else ():
        files = [path for path in _files(profile, run, kept) if path.is_file()]
        there = [artifacts / path.relative_to(kept) for path in files]
        if not files or there[-1].exists():
            continue
        same = (cmp(path, own) for path, own in zip(files, there, strict=True) if own.exists())
        if all(same):  # nothing, or what an interrupted copying left
            for path, own in zip(files, there, strict=True):
                own.parent.mkdir(parents=True, exist_ok=True)
                with replaced(own) as part:
                    shutil.copyfile(path, part)
            restored.append(run.id)
    return restored


def keep(profile: Profile, run: Run) -> list[Path]:
    """Copy the artifacts of a finished run to `PRETRAINED`, the adapters of an explainer rounded to
    bfloat16; the files. Raises `UserError` if the run is due or not on this machine."""
    # Here, for every start of `run_all` imports this module.
    from introspect_utils.models.residual_store import layer_means

    artifacts, kept = artifacts_dir(profile.name), PRETRAINED / profile.name
    if run.id in due(profile) or not all(p.is_file() for p in heavy_outputs(profile, run)):
        raise UserError(
            f"{run.id} is not finished here: ./run_all.sh {profile.name} --until {run.id}"
        )
    if means := _means(run):
        layer_means(means.parent, profile.features.layers)
    files = [path for path in _files(profile, run, artifacts) if path.is_file()]
    for path in files:
        copy = kept / path.relative_to(artifacts)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.name in WEIGHTS and (path.parent / "explainer.json").is_file():
            _round(path, copy)
        elif path.name == "adapter_config.json":  # where the base lies on this machine is no news
            config = json.loads(path.read_text("utf-8"))
            config["base_model_name_or_path"] = None
            copy.write_text(json.dumps(config, indent=1) + "\n", "utf-8")
        else:
            shutil.copyfile(path, copy)
    return [kept / path.relative_to(artifacts) for path in files]


def _files(profile: Profile, run: Run, root: Path) -> list[Path]:
    """What a run makes, under `root` in place of artifacts/: its record last. Of a checkpoint
    everything in its folder, without what an interrupted training goes on from."""
    artifacts, files = artifacts_dir(profile.name), []
    for path in heavy_outputs(profile, run):
        here = root / path.relative_to(artifacts)
        folder = here.parent.glob("*.*") if "checkpoints" in here.parts else [here]
        files += sorted(file for file in folder if file.suffix not in LEFT)
    if means := _means(run):
        files.append(root / means.relative_to(artifacts))
    return [*files, root / "made_from" / f"{run.id}.json"] if files else []


def _means(run: Run) -> Path | None:
    """Where the layers' means lie, if the run makes the data of features."""
    folders = (path.parent for path in run.outputs if path.name == "directions.safetensors")
    return next((folder / "residuals" / MEANS for folder in folders), None)


def _round(path: Path, copy: Path) -> None:
    """Weights in bfloat16."""
    import torch
    from safetensors.torch import load_file, save_file

    rounded = {name: part.to(torch.bfloat16) for name, part in load_file(path).items()}
    save_file(rounded, copy, {"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m introspect_utils.runs.pretrained")
    parser.add_argument("profile")
    parser.add_argument("runs", nargs="+", metavar="RUN")
    asked = parser.parse_args()
    profile = load_profile(asked.profile)
    runs = plan(profile)
    for run in [find_run(run_id, runs, profile) for run_id in asked.runs]:
        files = keep(profile, run)
        size = sum(path.stat().st_size for path in files) / 1e6
        print(f"{run.id}: {len(files)} files, {size:.1f} MB")


if __name__ == "__main__":
    command(main)
