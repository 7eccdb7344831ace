"""Fitting a network: weighted cross-entropy, early stopping, reproducible to the bit, calibrated to the true prior."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from serve_app.errors import ConfigError
from serve_app.model.architectures import SignalNetwork
from serve_app.training.samples import Samples
from serve_app.types import FloatArray


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How to fit. Same settings, samples, torch and machine: the same weights to the bit."""

    seed: int = 7
    epochs: int = 60
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    patience: int = 10
    """Stop after this many epochs without a lower validation loss."""
    threads: int = 1
    """Of torch; part of the result, since sums are split by thread."""


@dataclass(frozen=True, slots=True)
class EpochReport:
    """Mean weighted cross-entropy over one epoch; `epoch` counts from 1."""

    epoch: int
    epochs: int
    train_loss: float
    validation_loss: float


@dataclass(frozen=True, slots=True)
class FitReport:
    """How the fit went: which epoch's weights were kept, the weight of the positive class, and every epoch."""

    best_epoch: int
    positive_weight: float
    n_parameters: int
    history: tuple[EpochReport, ...]


class Progress(Protocol):
    """Told of every finished epoch: a progress bar, a log, or nothing."""

    def __call__(self, report: EpochReport, /) -> None:
        """Take the report of one epoch."""


def silent(_: EpochReport, /) -> None:
    """Report nothing."""


def fit(
    module: SignalNetwork, train: Samples, validation: Samples, settings: FitSettings, progress: Progress = silent
) -> FitReport:
    """Fit `module` in place and leave it in eval mode with the weights of the lowest validation loss.

    The loss is cross-entropy with positives weighted by negatives / positives of `train`, in training and validation.
    Afterwards the weight is taken out of the logits again, see `correct_prior`.

    Raises:
        ConfigError: a period is empty, the training period has one class only, or no epoch had a finite loss.
    """
    positive_weight = _positive_weight(train, validation)
    with reproducible(settings.seed, settings.threads):
        loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(positive_weight))
        history, best_epoch = _fit_epochs(module, train, validation, loss, settings, progress)
    correct_prior(module, positive_weight)
    n_parameters = sum(parameter.numel() for parameter in module.parameters())
    return FitReport(best_epoch, positive_weight, n_parameters, history)


@contextmanager
def reproducible(seed: int, threads: int) -> Iterator[None]:
    """Seed torch, fix its threads and its algorithms inside the block, and restore all three after it."""
    threads_before, deterministic_before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic_before)
            torch.set_num_threads(threads_before)


def correct_prior(module: SignalNetwork, positive_weight: float) -> None:
    """Take the class weight out of the logits: with weight w the fit converges to logit(p) + log w.

    Weighting positives by w is the same as meeting them w times as often, which shifts the logit of the true
    probability by log w (Elkan 2001, theorem 2; King & Zeng 2001, section 4.1). Subtracting it from the last bias makes
    the sigmoid a probability again; ranking is not touched.
    """
    bias = module.output_layer.bias
    with torch.no_grad():
        bias.sub_(math.log(positive_weight))


def predict(module: SignalNetwork, samples: Samples, batch_size: int = 1024) -> FloatArray:
    """Return probabilities (n,), the sigmoid taken in float64."""
    module.eval()
    with torch.inference_mode():
        logits = torch.cat([module(features, ids) for features, ids, _ in _batches(samples, batch_size)])
    probabilities: FloatArray = torch.sigmoid(logits.double()).numpy()
    return probabilities


def _positive_weight(train: Samples, validation: Samples) -> float:
    if not len(train) or not len(validation):
        raise ConfigError(
            f"{len(train)} training and {len(validation)} validation windows: choose earlier or later cuts"
        )
    positives = float(np.sum(train.labels))
    if not 0 < positives < len(train):
        raise ConfigError(f"{positives:.0f} of {len(train)} training labels are positive; change the label definition")
    return (len(train) - positives) / positives


def _fit_epochs(
    module: SignalNetwork,
    train: Samples,
    validation: Samples,
    loss: nn.Module,
    settings: FitSettings,
    progress: Progress,
) -> tuple[tuple[EpochReport, ...], int]:
    optimiser = torch.optim.AdamW(module.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    shuffle = torch.Generator().manual_seed(settings.seed)
    history: list[EpochReport] = []
    best_loss, best_epoch, best_weights = math.inf, 0, copy.deepcopy(module.state_dict())
    for epoch in range(1, settings.epochs + 1):
        train_loss = _train_epoch(module, _batches(train, settings.batch_size, shuffle), loss, optimiser)
        validation_loss = _mean_loss(module, validation, loss)
        history.append(EpochReport(epoch, settings.epochs, train_loss, validation_loss))
        progress(history[-1])
        if validation_loss < best_loss:
            best_loss, best_epoch, best_weights = validation_loss, epoch, copy.deepcopy(module.state_dict())
        if epoch - best_epoch >= settings.patience:
            break
    if not best_epoch:
        raise ConfigError("no epoch had a finite validation loss; lower the learning rate")
    module.load_state_dict(best_weights)
    module.eval()
    return tuple(history), best_epoch


def _train_epoch(
    module: SignalNetwork,
    batches: Iterator[tuple[Tensor, Tensor, Tensor]],
    loss: nn.Module,
    optimiser: torch.optim.Optimizer,
) -> float:
    module.train()
    total, n = 0.0, 0
    for features, asset_ids, labels in batches:
        optimiser.zero_grad()
        batch_loss = loss(module(features, asset_ids), labels)
        batch_loss.backward()
        optimiser.step()
        total, n = total + float(batch_loss.detach()) * len(labels), n + len(labels)
    return total / n


def _mean_loss(module: SignalNetwork, samples: Samples, loss: nn.Module) -> float:
    module.eval()
    with torch.inference_mode():
        parts = [float(loss(module(x, ids), y)) * len(y) for x, ids, y in _batches(samples, 1024)]
    return sum(parts) / len(samples)


def _batches(
    samples: Samples, batch_size: int, shuffle: torch.Generator | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Cut samples into (windows, asset ids, labels), in order or shuffled."""
    tensors = [torch.from_numpy(array) for array in (samples.windows, samples.asset_ids, samples.labels)]
    n = len(samples)
    order = torch.arange(n) if shuffle is None else torch.randperm(n, generator=shuffle)
    for start in range(0, n, batch_size):
        windows, asset_ids, labels = (tensor[order[start : start + batch_size]] for tensor in tensors)
        yield windows, asset_ids, labels
