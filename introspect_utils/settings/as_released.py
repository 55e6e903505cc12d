"""`as_released: true` in a profile: training as in the authors' code, where that is done otherwise
here.

docs/deviations.md has a row for every deviation, also for those that are not
set back. `introspect_utils.explainer.train` reads the three of `AsReleased`;
`Profile.explainer_for` caps the rank of a projection beside LoRA.
"""

from dataclasses import replace

from introspect_utils.settings.profile import Profile, Training


class AsReleased(Training):
    """The settings of a profile file, with the authors' ways in place of ours."""

    loss = "padded"  # a mean over the padded rows: its scale falls with padding
    weights = "bfloat16"  # small updates are rounded away
    order = "file"


def as_released(profile: Profile) -> Profile:
    """`profile` with the authors' training, and the raw vector as the continuous token."""
    return replace(
        profile,
        training=AsReleased(**vars(profile.training)),
        explainer=replace(profile.explainer, vector_center=False, vector_scale="raw"),
    )
