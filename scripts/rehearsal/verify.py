"""What a rehearsal must have come to where a fault would be silent, read off the files that it
leaves: `verify` names each fault. A fault that ends a run needs no check."""

import json
import re
from collections.abc import Iterator

import nbformat
import pyarrow.parquet as pq
import torch

from introspect_utils.settings.paths import artifacts_dir, figures_dir

ASKED = re.compile(r"at layers? ([^a-z<\n]*\d[^a-z<\n]*?)[ ,.]* ?(?:is|to|mean|encode)")
IN_FULL = re.compile(r"\d+(, \d+)*")
RAW = re.compile("[ĠĊ]")  # a space and a line break as tokenizers write them


def verify(name: str) -> list[str]:
    """The silent faults of the rehearsal `name`, in words; empty if there are none."""
    return [*_questions(name), *_losses(name)]


def _questions(name: str) -> Iterator[str]:
    """Explainers are asked in text, not in a tokenizer's own strings, with layers in full."""
    for path in sorted((artifacts_dir(name) / "patching").glob("*/*.parquet")):
        tokens = pq.read_table(path)["input_tokens"].to_pylist()
        if any(RAW.search(token) for row in tokens for token in row):
            yield f"{path} has a tokenizer's own strings"
    for path in sorted((artifacts_dir(name) / "notebooks").glob("patching-*.ipynb")):
        said = "".join(
            output.get("text", "")
            for cell in nbformat.read(path, as_version=4).cells
            for output in cell.get("outputs", [])
        )
        if RAW.search(said):
            yield f"{path.stem} asks with a tokenizer's own strings"
        if layers := [text for text in ASKED.findall(said) if not IN_FULL.fullmatch(text.strip())]:
            yield f"{path.stem} does not write out layers: {layers[0]}"


def _losses(name: str) -> Iterator[str]:
    """The losses of several processes are summed in float32, not rounded to bfloat16."""
    for path in sorted(figures_dir(name).glob("runs/*/run.json")):
        run = json.loads(path.read_text("utf-8"))
        sharded = run["settings"].get("training", {}).get("sharded")
        losses = torch.tensor(run["statistics"].get("losses", []) if sharded else [])
        if len(losses) and torch.equal(losses, losses.bfloat16().float()):
            yield f"{path.parent.name}: all {len(losses)} losses are bfloat16 numbers"
