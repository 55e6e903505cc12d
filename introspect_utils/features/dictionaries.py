"""Dictionaries of SAE features (section 3.1) in SAELens's format: released ones by their id, or
TopK ones that SAELens trains here on stored residuals."""

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
    from sae_lens.config import SAETrainerConfig

BLOCK = 4096  # tokens encoded at once
SAMPLE = 16_384  # tokens that estimate the mean and the norm of a layer's residuals


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
    """A TopK dictionary of `d_sae` latents, k active a token, trained on `n_samples` tokens of
    `residuals` [N, T, d] in random order and kept in `folder`; one made there in the same way is
    read back."""
    from sae_lens.config import LoggingConfig, SAETrainerConfig

    settings = (d_sae, k, n_samples, batch_size, lr, seed, compute_dtype)
    some = residuals[:: max(1, len(residuals) // 64)].float().cpu().numpy()
    about = repr((settings, residuals.shape)).encode()
    made_from = hashlib.sha256(about + some.tobytes()).hexdigest()
    if (folder / "cfg.json").is_file():
        dictionary = load_dictionary(str(folder), device=device)
        if dictionary.cfg.metadata.made_from == made_from:
            return dictionary
    steps = max(1, n_samples // batch_size)
    config = SAETrainerConfig(
        total_training_samples=n_samples,
        train_batch_size_samples=batch_size,
        lr=lr,
        lr_end=lr,
        lr_warm_up_steps=steps // 20,
        lr_decay_steps=steps // 5,
        # steps without firing after which the auxiliary loss revives a latent
        dead_feature_window=max(1, steps // 10),
        device=device,
        autocast=choose_compute_dtype(compute_dtype, device) == "bfloat16",
        logger=LoggingConfig(log_to_wandb=False),
    )
    trainer = _trainer(residuals.flatten(0, 1), config, d_sae, k, seed)
    # SAETrainer.fit without its progress bar and its wandb histograms
    bar = {"unit": "token", "unit_scale": True, "mininterval": 10}
    with tqdm(total=n_samples, desc=folder.name, **bar) as progress:
        while trainer.n_training_samples < n_samples:
            loss = trainer.step(next(trainer.data_provider)).loss
            trainer.n_training_steps += 1
            progress.set_postfix(loss=f"{loss.item():.3g}", refresh=False)
            progress.update(batch_size)
    trainer.sae.fold_activation_norm_scaling_factor(trainer.activation_scaler.scaling_factor)
    trainer.sae.cfg.metadata.made_from = made_from
    # SAELens writes cfg.json last, so it means that the weights are there
    (folder / "cfg.json").unlink(missing_ok=True)
    trainer.sae.save_inference_model(folder)
    return load_dictionary(str(folder), device=device)


def _trainer(tokens: Tensor, config: SAETrainerConfig, d_sae: int, k: int, seed: int) -> SAETrainer:
    """SAELens's trainer of an untrained dictionary, which scales `tokens` [n, d] to a mean norm of
    sqrt(d)."""
    from sae_lens import SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig

    width, normalize = tokens.shape[1], {"normalize_activations": "expected_average_only_in"}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shape = TopKTrainingSAEConfig(width, d_sae, k=k, device=config.device, **normalize)
        sae = TopKTrainingSAE(shape)
    draw = torch.Generator().manual_seed(seed)
    sample = tokens[torch.randint(len(tokens), (SAMPLE,), generator=draw)]
    sample = sample.to(config.device).float()
    scale = width**0.5 / sample.norm(dim=1).mean().item()
    # without this most of a short training goes into finding the mean
    sae.b_dec.data.copy_(scale * sample.mean(0))
    trainer = SAETrainer(config, sae, _batches(tokens, config.train_batch_size_samples, draw))
    trainer.activation_scaler.scaling_factor = scale
    return trainer


def _batches(tokens: Tensor, batch_size: int, draw: torch.Generator) -> Iterator[Tensor]:
    """Rows of `tokens` [n, d] in random order, again and again, [batch, d] float32."""
    while True:
        for rows in torch.randperm(len(tokens), generator=draw).split(batch_size):
            yield tokens[rows].float()


def load_dictionary(source: str, sae_id: str | None = None, device: str = "cpu") -> SAE:
    """A dictionary in SAELens's format from a local folder, or a released one:
    ("llama_scope_lxr_32x", "l19r_32x"). It reads and writes the residual stream as it is: the norm
    of its inputs is folded in. Raises `UserError` when it cannot be loaded or that norm is
    unknown."""
    from sae_lens import SAE
    from sae_lens.loading.pretrained_saes_directory import get_norm_scaling_factor

    try:
        with warnings.catch_warnings(record=True):
            if sae_id is None:
                sae = SAE.load_from_disk(source, device)
            else:
                sae = SAE.from_pretrained(source, sae_id, device)
                sae.cfg.metadata.folded_scale = get_norm_scaling_factor(source, sae_id)
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
    """[d_sae, d] float32: the directions of the latents as published, without the norm that SAELens
    divides a released decoder by (layer 0 of LlamaScope: 58.9)."""
    return sae.W_dec.detach().float() * (sae.cfg.metadata.folded_scale or 1)


def dictionary_directions(
    sae: SAE, layer: int, latents: Sequence[int], n_test: int, seed: int
) -> Directions:
    """Decoder rows of latents; `n_test`, drawn at random, are held out. Raises `UserError` if there
    are fewer."""
    n = len(latents)
    if n < n_test:
        raise UserError(
            f"layer {layer} has {n} latents to describe, and {n_test} are to be held out: lower "
            "that"
        )
    test = set(random.Random(f"{seed}-{layer}").sample(list(latents), n_test))
    names = tuple(f"sae/{layer}/{latent}" for latent in latents)
    split = tuple("test" if latent in test else "train" for latent in latents)
    vectors = decoder(sae)[torch.as_tensor(latents, dtype=torch.int64)].cpu()
    return Directions(names, ("sae",) * n, split, (layer,) * n, vectors, ("",) * n)


@torch.inference_mode()
def _encoded(sae: SAE, residuals: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(h [tokens, d], latents [tokens, d_sae]), both float32, block by block."""
    for block in residuals.flatten(0, 1).split(BLOCK):
        h = block.to(sae.device).float()
        yield h, sae.encode(h)


@torch.inference_mode()
def dictionary_report(sae: SAE, residuals: Tensor) -> dict[str, float]:
    """On residuals [N, T, d] it was not trained on: explained variance, L0 (active latents a
    token), share of dead latents."""
    mean = mean_residual(residuals).double().to(sae.device)
    error = variance = 0.0
    active = torch.zeros(sae.cfg.d_sae, dtype=torch.int64, device=sae.device)
    for h, latents in _encoded(sae, residuals):
        error += (h - sae.decode(latents)).double().square().sum().item()
        variance += (h - mean).square().sum().item()
        active += latents.count_nonzero(0)
    return {
        "explained_variance": 1 - error / variance,
        "l0": active.sum().item() / residuals.shape[:2].numel(),
        "dead": (active == 0).float().mean().item(),
    }


def alive(sae: SAE, residuals: Tensor, at_least: int) -> list[int]:
    """The latents that are active on at least so many tokens of residuals [N, T, d]."""
    counts = sum(latents.count_nonzero(0) for _, latents in _encoded(sae, residuals))
    return (counts >= at_least).nonzero()[:, 0].tolist()
