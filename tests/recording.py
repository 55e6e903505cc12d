"""Made-up records of patching and ablation, for the tests of tables and figures."""

from introspect_utils.report.paper import count_condition

TARGET = "smollm2-135m-instruct"
ROWS = {  # explainer, condition: exact match, has-changed F1, content match, p against the best
    ("self", "full"): (0.352, 0.792, 0.41, 1.0),
    ("self", "no-vector"): (0.281, 0.774, 0.35, 0.004),
    ("self", "no-layer"): (0.345, 0.788, 0.405, 0.31),
    ("self", "no-token"): (0.34, 0.78, 0.4, 0.12),
    ("self", "zero-vector"): (0.275, 0.76, 0.33, 0.002),
    ("self", "shuffled-vector"): (0.25, 0.74, 0.31, 0.001),
    ("gemma3-270m", "full"): (0.3, 0.75, 0.36, 0.01),
    ("untrained", "full"): (0.02, 0.31, 0.06, 0.0),
    ("lookup", "full"): (0.2, 0.775, 0.25, 0.0),
    ("majority", "full"): (0.12, 0.33, 0.15, 0.0),
}


def record(
    table,
    explainer,
    condition,
    metric,
    value,
    stderr=0.019,
    p=None,
    target=TARGET,
    data="test",
    task="patching",
):
    return {
        "table": table,
        "task": task,
        "data": data,
        "target": target,
        "explainer": explainer,
        "condition": condition,
        "metric": metric,
        "value": value,
        "stderr": stderr,
        "low": None if stderr is None else value - 2 * stderr,
        "high": None if stderr is None else value + 2 * stderr,
        "n": 600,
        "clusters": None,
        "n_clusters": 600,
        "error_by": {},
        "seeds": [0, 1],
        "n_train": None if explainer in ("lookup", "majority") else 2000,
        "trained_parameters": 0 if explainer in ("lookup", "majority", "untrained") else 1_234_567,
        "paper": None,
        "artifact": f"artifacts/mini/{explainer}_{condition}",
        "p": p,
        "reason": None,
    }


def some_records(target=TARGET):
    found = []
    for (explainer, condition), (*values, p) in ROWS.items():
        for metric, value in zip(
            ("exact_match", "has_changed_f1", "content_match"), values, strict=True
        ):
            found.append(record("2", explainer, condition, metric, value, p=p, target=target))
        found.append(record("2", explainer, condition, "unparseable", 0.01, 0.004, target=target))
    for control, value in (
        ("zero-vector", 0.077),
        ("shuffled-vector", 0.102),
        ("no-vector", -0.071),
    ):
        found += [
            record("2-vector", "self", f"full minus {control}", metric, value, 0.016, target=target)
            for metric in ("exact_match", "has_changed_f1", "content_match")
        ]
    found.append(record("C.1", "self", "locate", "exact_match", 0.963, 0.006, target=target))
    counts = (
        ("train", "relation", "0-6", 12),
        ("train", " or", "0-6", 3),
        ("train", "</s> / x", "0-6", 4),
        ("test", "subject-final", "7-14", 9),
    )
    for split, token_type, layers, count in counts:
        for label in ("unchanged", "changed"):
            condition = count_condition(token_type, layers, label)
            found.append(
                record(
                    "6",
                    "",
                    condition,
                    "count",
                    count + (label == "changed"),
                    None,
                    target=target,
                    data=split,
                )
            )
    return found


def ablation_records():
    scores = {
        ("self", "full"): (0.4, 0.7, 0.5),
        ("gemma3-270m", "full"): (0.3, 0.6, 0.4),
        ("untrained", "full"): (0.1, 0.35, 0.3),
        ("oracle", "full"): (0.8, 0.8, 1.0),
        ("hint-letter", "full"): (0.2, 0.3, 0.25),
    }
    found = [
        record("3", *name, metric, value, p=None if name[0] == "oracle" else 1.0, task="ablation")
        for name, values in scores.items()
        for metric, value in zip(
            ("exact_match", "has_changed_f1", "content_match"), values, strict=True
        )
    ]
    found.append(record("sec5.2", "untrained", "full", "predicted_changed", 0.02, task="ablation"))
    found.append(
        record("sec5.2", "untrained", "changed rows", "content_match", 0.1, task="ablation")
    )
    for part, label, value in (
        ("train", "changed", 60),
        ("train", "unchanged", 40),
        ("test", "changed", 5),
        ("test", "unchanged", 5),
    ):
        found.append(record("7", "", label, "count", value, None, data=part, task="ablation"))
    for condition, value, n in (
        ("anatomy / right", 0.5, 4),
        ("anatomy / wrong", 0.75, 8),
        ("virology / wrong", 1.0, 12),
    ):
        found.append(
            record("hints", "", condition, "follows_hint", value, None, task="ablation") | {"n": n}
        )
    return found
