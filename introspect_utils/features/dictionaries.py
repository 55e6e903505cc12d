"""Dictionaries of SAE features (section 3.1), SAELens's: released ones by their id, or TopK ones
trained here by SAELens on stored residuals."""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from introspect_utils.features.directions import Directions
from introspect_utils.models.load import choose_compute_dtype
from introspect_utils.models.residual_store import mean_residual
from introspect_utils.settings.errors import UserError

if TYPE_CHECKING:
    from sae_lens import SAE, SAETrainer

BLOCK = 4096  # tokens encoded at once
SAMPLE = 16_384  # tokens that the mean and the norm of a layer's residuals are estimated on


def train_dictionary(
    residuals: Tensor,
    d_sae: int,
    k: int,
    n_samples: int,
    batch_size: int,
    lr: float,
    seed: int,
    folder: Path,
    device: str = "cpu",
    compute_dtype: str = "float32",
) -> SAE:
    """A TopK dictionary of `d_sae` latents, k active a token, trained by SAELens on `residuals` [N,
    T, d], kept in `folder`.

    `n_samples` tokens are seen, shuffled, in as many epochs as that takes; `compute_dtype` bfloat16
    is autocast, faster where there is hardware for it. One of the same settings that is in `folder`
    already is read back.
    """
    settings = (d_sae, k, n_samples, batch_size, lr, seed, compute_dtype)
    made_from = _fingerprint(settings, residuals)
    if (folder / "cfg.json").is_file():
        dictionary = load_dictionary(str(folder), device=device)
        if dictionary.cfg.metadata.made_from == made_from:
            return dictionary

    trainer, scale = _trainer(
        residuals.flatten(0, 1), d_sae, k, n_samples, batch_size, lr, seed, device, compute_dtype
    )
    # SAETrainer.fit without its progress bar and its wandb histograms
    with tqdm(
        total=n_samples, desc=folder.name, unit="token", unit_scale=True, mininterval=10
    ) as progress:
        while trainer.n_training_samples < n_samples:
            batch = next(trainer.data_provider)
            loss = trainer.step(batch).loss
            trainer.n_training_steps += 1
            progress.set_postfix(loss=f"{loss.item():.3g}", refresh=False)
            progress.update(len(batch))
    trainer.sae.fold_activation_norm_scaling_factor(scale)
    trainer.sae.cfg.metadata.made_from = made_from
    (folder / "cfg.json").unlink(
        missing_ok=True
    )  # SAELens writes it last, so it means that the weights are there
    trainer.sae.save_inference_model(folder)
    return load_dictionary(str(folder), device=device)


def _trainer(
    tokens: Tensor,
    d_sae: int,
    k: int,
    n_samples: int,
    batch_size: int,
    lr: float,
    seed: int,
    device: str,
    compute_dtype: str,
) -> tuple[SAETrainer, float]:
    """SAELens's trainer of an untrained dictionary, and the scale that brings `tokens` [n, d] to a
    mean norm of sqrt(d)."""
    from sae_lens import SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig

    steps = max(1, n_samples // batch_size)
    settings = SAETrainerConfig(
        total_training_samples=n_samples,
        train_batch_size_samples=batch_size,
        lr=lr,
        lr_end=lr,
        lr_warm_up_steps=steps // 20,
        lr_decay_steps=steps // 5,
        dead_feature_window=max(
            1, steps // 10
        ),  # passes without firing, after which the auxiliary loss revives a latent
        device=device,
        autocast=choose_compute_dtype(compute_dtype, device) == "bfloat16",
        logger=LoggingConfig(log_to_wandb=False),
    )
    width = tokens.shape[1]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sae = TopKTrainingSAE(
            TopKTrainingSAEConfig(
                width, d_sae, k=k, device=device, normalize_activations="expected_average_only_in"
            )
        )
    draw = torch.Generator().manual_seed(seed)
    sample = tokens[torch.randint(len(tokens), (SAMPLE,), generator=draw)].to(device).float()
    scale = width**0.5 / sample.norm(dim=1).mean().item()
    sae.b_dec.data.copy_(
        scale * sample.mean(0)
    )  # else most of a short training goes into finding the mean
    trainer = SAETrainer(settings, sae, _batches(tokens, batch_size, draw))
    trainer.activation_scaler.scaling_factor = scale
    return trainer, scale


def _fingerprint(settings: tuple, residuals: Tensor) -> str:
    """What a dictionary belongs to: its settings, and the residuals (their shape and some of
    them)."""
    some = residuals[:: max(1, len(residuals) // 64)].float().cpu()
    return hashlib.sha256(
        repr((settings, residuals.shape)).encode() + some.numpy().tobytes()
    ).hexdigest()


def _batches(tokens: Tensor, batch_size: int, draw: torch.Generator) -> Iterator[Tensor]:
    """Rows of `tokens` [n, d] in random order, again and again, [batch, d] float32."""
    while True:
        for rows in torch.randperm(len(tokens), generator=draw).split(batch_size):
            yield tokens[rows].float()


def load_dictionary(source: str, sae_id: str | None = None, device: str = "cpu") -> SAE:
    """A dictionary in SAELens's format from a local folder, or a released one:
    ("llama_scope_lxr_32x", "l19r_32x").

    What it was trained to divide its inputs by is folded into the weights: it reads, and writes,
    the residual stream as it is. Raises `UserError` when it cannot be loaded, or when that scale is
    unknown.
    """
    from sae_lens import SAE

    try:
        with warnings.catch_warnings(record=True):
            sae = (
                SAE.load_from_disk(source, device)
                if sae_id is None
                else SAE.from_pretrained(source, sae_id, device)
            )
    except (OSError, ValueError, KeyError) as error:  # no such folder, release or id; no network
        what = f"dictionary {source!r}" + (f", id {sae_id!r}" if sae_id else "")
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"cannot load {what} ({reason}): give a folder, or a release of SAELens and one of its "
            "ids"
        ) from error
    if sae.cfg.normalize_activations == "expected_average_only_in":
        raise UserError(
            f"{source}, {sae_id}: the scale of this dictionary's inputs is not known to SAELens; "
            "take another release"
        )
    return sae.eval().requires_grad_(False)


def decoder(sae: SAE) -> Tensor:
    """[d_sae, d] float32: row i is what one unit of latent i adds to the residual stream.
    (LlamaScope's files hold columns.)"""
    return sae.W_dec.detach().float()


def dictionary_directions(
    sae: SAE, layer: int, latents: Sequence[int], n_test: int, seed: int
) -> Directions:
    """Decoder rows of these latents; `n_test` of them, drawn at random, are held out. Raises
    `UserError` if there are fewer."""
    if len(latents) < n_test:
        raise UserError(
            f"layer {layer} has {len(latents)} latents to describe, and {n_test} are to be held "
            "out: lower that"
        )
    test = set(random.Random(f"{seed}-{layer}").sample(list(latents), n_test))
    n = len(latents)
    return Directions(
        names=tuple(f"sae/{layer}/{latent}" for latent in latents),
        data=("sae",) * n,
        split=tuple("test" if latent in test else "train" for latent in latents),
        layers=(layer,) * n,
        vectors=decoder(sae)[torch.as_tensor(latents, dtype=torch.int64)].cpu(),
        sources=("",) * n,
    )


@torch.inference_mode()
def _encoded(sae: SAE, residuals: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(h [tokens, d], latents [tokens, d_sae]), both float32, block after block of residuals [N, T,
    d]."""
    for block in residuals.flatten(0, 1).split(BLOCK):
        h = block.to(sae.device).float()
        yield h, sae.encode(h)


@torch.inference_mode()
def dictionary_report(sae: SAE, residuals: Tensor) -> dict[str, float]:
    """On residuals [N, T, d] it was not trained on: explained variance, L0 (active latents a
    token), share of dead latents."""
    n_tokens = residuals.shape[:2].numel()
    mean = mean_residual(residuals).double().to(sae.device)
    error = variance = active = 0.0
    fired = torch.zeros(sae.cfg.d_sae, dtype=torch.bool, device=sae.device)
    for h, latents in _encoded(sae, residuals):
        error += (h - sae.decode(latents)).double().square().sum().item()
        variance += (h - mean).square().sum().item()
        active += latents.count_nonzero().item()
        fired |= latents.any(0)
    return {
        "explained_variance": 1 - error / variance,
        "l0": active / n_tokens,
        "dead": 1 - fired.float().mean().item(),
    }


def alive(sae: SAE, residuals: Tensor, at_least: int) -> list[int]:
    """The latents that are active on at least so many tokens of residuals [N, T, d]."""
    counts = sum(latents.count_nonzero(0) for _, latents in _encoded(sae, residuals))
    return (counts >= at_least).nonzero()[:, 0].tolist()
