"""The profile `paper` with every optional part that adds runs, so with every row of the paper's
tables; and with descriptions of its own in place of the published ones."""

import os
from dataclasses import replace
from unittest import mock

from introspect_utils.settings.profile import WITH, load_profile

OPTIONAL = "paper/optional/gemma paper/optional/llama-70b"
with mock.patch.dict(os.environ, {WITH: OPTIONAL}):
    PAPER = load_profile("paper")
OWN = replace(PAPER, features=replace(PAPER.features, published=None), parts=())
