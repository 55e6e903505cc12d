import json

import pytest
import torch
from safetensors.torch import save_file

from introspect_utils.features import dictionaries
from introspect_utils.features.dictionaries import (
    alive,
    decoder,
    dictionary_directions,
    dictionary_report,
    load_dictionary,
    train_dictionary,
)
from introspect_utils.settings.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")
D, D_SAE, K = 24, 40, 3
OFFSET = 50.0  # the mean of the residual stream is far from zero


@pytest.fixture(scope="module")
def data():
    """Sparse sums of 30 known directions around a large mean: (residuals [N, T, d] in bfloat16,
    directions [30, d])."""
    draw = torch.Generator().manual_seed(0)
    truth = torch.nn.functional.normalize(torch.randn(30, D, generator=draw), dim=1)
    active = torch.rand(400, 8, 30, generator=draw).argsort(-1) < K
    weights = active * (20 + 40 * torch.rand(400, 8, 30, generator=draw))
    return (
        weights @ truth + OFFSET * torch.nn.functional.normalize(torch.ones(D), dim=0)
    ).bfloat16(), truth


SETTINGS = dict(d_sae=D_SAE, k=K, n_samples=60_000, batch_size=256, lr=1e-2, seed=0)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dictionary") / "layer1"
    return train_dictionary(data[0][:300], **SETTINGS, folder=folder), folder


# --- training


def test_training_finds_the_directions_that_the_data_are_made_of(data, trained):
    residuals, truth = data
    sae, _ = trained
    directions = torch.nn.functional.normalize(decoder(sae), dim=1)
    assert (truth @ directions.T).amax(1).median() > 0.9
    report = dictionary_report(sae, residuals[300:])
    assert report["explained_variance"] > 0.8 and report["l0"] <= K + 1e-6 and report["dead"] < 0.5


def test_a_dictionary_reads_and_writes_the_residual_stream_as_it_is(data, trained):
    sae, _ = trained
    h = data[0][300:].flatten(0, 1).float()
    latents = sae.encode(h)
    assert sae.cfg.normalize_activations == "none" and not any(
        p.requires_grad for p in sae.parameters()
    )
    # what a latent adds, by the direction it adds it in, is the activation: rows are directions,
    # and the scale is h's
    torch.testing.assert_close(
        sae.decode(latents), latents @ decoder(sae) + sae.b_dec, rtol=1e-4, atol=1e-3
    )
    one = torch.zeros(1, D_SAE)
    one[0, 7] = 1.0
    torch.testing.assert_close(
        (sae.decode(one) - sae.decode(one * 0))[0], decoder(sae)[7], rtol=1e-3, atol=1e-4
    )
    assert (
        0.8 < latents[latents > 0].mean() / 40 < 1.25
    )  # weights are 20 to 60 along unit directions
    torch.testing.assert_close(sae.b_dec.norm().item(), OFFSET, rtol=0.4, atol=0)


def test_training_is_the_same_for_a_seed_and_leaves_the_global_generator_alone(data, tmp_path):
    short = SETTINGS | {"n_samples": 2000}
    torch.manual_seed(5)
    first = train_dictionary(data[0], **short, folder=tmp_path / "a")
    torch.rand(7)
    again = train_dictionary(data[0], **short, folder=tmp_path / "b")
    other = train_dictionary(data[0], **short | {"seed": 1}, folder=tmp_path / "c")
    assert torch.equal(decoder(first), decoder(again)) and not torch.equal(
        decoder(first), decoder(other)
    )
    torch.manual_seed(5)
    expected = torch.rand(8)[7]
    torch.manual_seed(5)
    torch.rand(7)
    train_dictionary(data[0], **short, folder=tmp_path / "d")
    assert torch.rand(1)[0] == expected


def test_a_finished_dictionary_is_read_back_and_another_replaces_it(
    data, trained, tmp_path, monkeypatch
):
    sae, folder = trained
    with monkeypatch.context() as patch:
        patch.setattr(dictionaries, "_trainer", lambda *_: pytest.fail("trained again"))
        again = train_dictionary(data[0][:300], **SETTINGS, folder=folder)
        assert torch.equal(decoder(again), decoder(sae))
        with pytest.raises(pytest.fail.Exception):  # other data
            train_dictionary(data[0][100:], **SETTINGS, folder=folder)
    short = SETTINGS | {"n_samples": 512}
    first = train_dictionary(data[0], **short, folder=tmp_path)
    other = train_dictionary(data[0], **short | {"seed": 1}, folder=tmp_path)
    assert torch.equal(decoder(load_dictionary(str(tmp_path))), decoder(other)) and not torch.equal(
        decoder(first), decoder(other)
    )
    assert {path.suffix for path in tmp_path.iterdir()} == {
        ".json",
        ".safetensors",
    }  # and no pickle


def test_training_begins_at_the_mean_of_the_residual_stream(data, tmp_path):
    sae = train_dictionary(data[0], **SETTINGS | {"n_samples": 512}, folder=tmp_path)
    mean = data[0].float().mean((0, 1))
    assert (sae.b_dec - mean).norm() < 0.1 * mean.norm()


def test_bfloat16_products_give_a_dictionary_too(data, tmp_path):
    sae = train_dictionary(
        data[0][:300], **SETTINGS | {"n_samples": 20_000}, folder=tmp_path, compute_dtype="bfloat16"
    )
    assert (
        dictionary_report(sae, data[0][300:])["explained_variance"] > 0.5
        and decoder(sae).dtype == torch.float32
    )


# --- the report, against everything at once


def test_report_and_alive_equal_brute_force(data, trained, monkeypatch):
    sae, _ = trained
    residuals = data[0][:9]
    h = residuals.flatten(0, 1).float()
    latents = sae.encode(h)
    left = (h - sae.decode(latents)).var(0, correction=0).sum() + (h - sae.decode(latents)).mean(
        0
    ).square().sum()
    monkeypatch.setattr(dictionaries, "BLOCK", 7)
    report = dictionary_report(sae, residuals)
    assert report["explained_variance"] == pytest.approx(
        1 - (left / h.var(0, correction=0).sum()).item(), rel=1e-4
    )
    assert report["l0"] == pytest.approx((latents != 0).sum(1).float().mean().item())
    assert report["dead"] == pytest.approx((~(latents != 0).any(0)).float().mean().item())
    counts = (latents != 0).sum(0)
    assert counts.unique().numel() > 4
    for at_least in (1, 3, 8):
        assert alive(sae, residuals, at_least) == [i for i in range(D_SAE) if counts[i] >= at_least]


# --- directions


def test_directions_of_a_dictionary_and_the_held_out_ones(trained):
    sae, _ = trained
    latents = [3, 11, 5, 30, 8, 22]
    found = dictionary_directions(sae, 12, latents, n_test=2, seed=0)
    assert (
        found.names == tuple(f"sae/12/{i}" for i in latents)
        and set(found.layers) == {12}
        and set(found.data) == {"sae"}
    )
    assert torch.equal(found.vectors, decoder(sae)[latents])
    test = {found.names[i] for i in found.where(split="test")}
    assert len(test) == 2 and len(found.where(split="train")) == 4
    backwards = dictionary_directions(sae, 12, latents, n_test=2, seed=0)
    assert {backwards.names[i] for i in backwards.where(split="test")} == test
    drawn = {
        tuple(dictionary_directions(sae, 12, latents, 2, seed).where(split="test"))
        for seed in range(20)
    }
    assert len(drawn) > 5
    with pytest.raises(UserError, match="layer 12 has 6 latents to describe, and 7"):
        dictionary_directions(sae, 12, latents, n_test=7, seed=0)


# --- released dictionaries, in their own formats


def hub_with(monkeypatch, folder):
    """The hub is a local folder."""
    from sae_lens.loading import pretrained_sae_loaders

    def download(repo_id, filename, subfolder=None, **_):
        return str(folder / (f"{subfolder}/" if subfolder else "") / filename)

    monkeypatch.setattr(pretrained_sae_loaders, "hf_hub_download", download)


def test_llama_scope(monkeypatch, tmp_path):
    """Theirs: decoder.weight [d, d_sae] holds directions as columns, and inputs are scaled to a
    mean norm of sqrt(d)."""
    norm, threshold, scale = (
        17.125,
        0.4,
        3.737226277372263,
    )  # scale: SAELens's table, sqrt(4096) / norm
    draw = torch.Generator().manual_seed(0)
    weights = {
        "encoder.weight": torch.randn(D_SAE, D, generator=draw),
        "encoder.bias": torch.randn(D_SAE, generator=draw),
        "decoder.weight": torch.randn(D, D_SAE, generator=draw),
        "decoder.bias": torch.randn(D, generator=draw),
    }
    path = tmp_path / "Llama3_1-8B-Base-L19R-32x"
    (path / "checkpoints").mkdir(parents=True)
    save_file(weights, path / "checkpoints" / "final.safetensors")
    about = {
        "d_model": D,
        "d_sae": D_SAE,
        "jump_relu_threshold": threshold,
        "hook_point_in": "blocks.19.hook_resid_post",
        "dataset_average_activation_norm": {"in": norm, "out": norm},
    }
    (path / "hyperparams.json").write_text(json.dumps(about))
    hub_with(monkeypatch, tmp_path)
    sae = load_dictionary("llama_scope_lxr_32x", "l19r_32x")
    assert sae.cfg.normalize_activations == "none"
    for i in (0, 17):
        cosine = torch.cosine_similarity(decoder(sae)[i], weights["decoder.weight"][:, i], dim=0)
        assert cosine == pytest.approx(1, abs=1e-5)
    h = 4 * torch.randn(50, D, generator=draw)
    scaled = scale * h  # what they read; and what they write is scaled back
    before = scaled @ weights["encoder.weight"].T + weights["encoder.bias"]
    latents = before * (before > threshold * D**0.5 / norm)
    torch.testing.assert_close(sae.encode(h), latents, rtol=1e-3, atol=1e-3)
    written = (latents @ weights["decoder.weight"].T + weights["decoder.bias"]) / scale
    torch.testing.assert_close(sae.decode(latents), written, rtol=1e-3, atol=1e-3)
    # the published columns, without the norm that SAELens folds in
    torch.testing.assert_close(decoder(sae), weights["decoder.weight"].T, rtol=1e-4, atol=1e-5)


def test_a_dictionary_whose_scale_is_unknown_is_refused(trained, tmp_path):
    _, folder = trained
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    about = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(
        json.dumps(about | {"normalize_activations": "expected_average_only_in"})
    )
    with pytest.raises(UserError, match="scale of this dictionary's inputs is not known"):
        load_dictionary(str(tmp_path))


@pytest.mark.parametrize(
    "source", [("no/such/folder", None), ("no-release", "x"), ("llama_scope_lxr_32x", "l99r_32x")]
)
def test_what_cannot_be_loaded_is_an_error(source):
    with pytest.raises(
        UserError, match=f"cannot load dictionary '{source[0]}'.*give a folder, or a release"
    ):
        load_dictionary(*source)


def test_nothing_is_printed(data, tmp_path, capfd, recwarn):
    train_dictionary(data[0], **SETTINGS | {"n_samples": 2000}, folder=tmp_path / "layer3")
    out, err = capfd.readouterr()
    assert not out and not recwarn.list
    assert all(
        line.startswith("layer3:") or not line for line in err.replace("\r", "\n").splitlines()
    ), err
