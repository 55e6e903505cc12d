"""What notebooks say of their numbers."""

import re

import numpy as np
import pandas as pd
import pytest

from introspect_utils.report import seen
from introspect_utils.scores.metrics import estimate


def test_the_error_of_what_the_vector_adds_is_of_the_tasks_clusters():
    own = np.repeat([1.0, 0.0, 1.0, 0.0, 1.0, 1.0], 5)
    rows = {"row": range(30), "pair": np.repeat(range(6), 5)}
    full, other = (
        pd.DataFrame(rows | {"condition": condition, "exact_match": values})
        for condition, values in (("full", own), ("shuffled-vector", 0 * own))
    )
    said = seen.vector(pd.concat([full, other]), "exact_match")
    added, error = map(float, re.search(r"adds ([\d.]+) ± ([\d.]+)", said).groups())
    expected = estimate(100 * own[None], rows["pair"])
    assert (added, error) == pytest.approx((expected.value, expected.stderr), abs=0.05)
    assert "of one seed. The explainer reads it" in said
    assert "cannot be told" in seen.vector(
        pd.concat([full, full.replace("full", "shuffled-vector")]), "exact_match"
    )
