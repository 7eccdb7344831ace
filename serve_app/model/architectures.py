"""The networks: windows (B, L, F) and asset ids (B,) → logits (B,).

Submodules carry the names that training code elsewhere gives them, so that its state dicts load. The logit is that of
"the profit target is reached before the stop"; nobody but the model stage applies the sigmoid.
"""

import inspect
import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from serve_app.errors import ConfigError
from serve_app.model.bundle import Dimension


class SignalNetwork(nn.Module, ABC):
    """A network with an embedding per asset and one logit per window."""

    @property
    def output_layer(self) -> nn.Linear:
        """The dense layer that gives the logit: of all dense layers, every network registers it last."""
        return [module for module in self.modules() if isinstance(module, nn.Linear)][-1]

    @abstractmethod
    def forward(self, features: Tensor, asset_ids: Tensor) -> Tensor:
        """Map features (B, L, F) and asset ids (B,) int64 to logits (B,)."""


class SelfAttention(nn.Module):
    """Single-head scaled dot-product attention of a sequence on itself (Vaswani et al. 2017): (B, L, H) → (B, L, H)."""

    def __init__(self, hidden_dim: int, attention_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_dim, attention_dim)
        self.key = nn.Linear(hidden_dim, attention_dim)
        self.value = nn.Linear(hidden_dim, hidden_dim)
        self.scale = attention_dim**0.5

    def forward(self, hidden: Tensor) -> Tensor:
        """Let every step attend to every step of its own window."""
        scores = self.query(hidden) @ self.key(hidden).transpose(1, 2) / self.scale
        attended: Tensor = torch.softmax(scores, dim=-1) @ self.value(hidden)
        return attended


class Mlp(SignalNetwork):
    """The flattened window and the asset's embedding through dense layers; L is fixed."""

    def __init__(
        self,
        *,
        n_features: int,
        lookback_window: int,
        num_assets: int,
        asset_embedding_dim: int = 8,
        hidden_dims: Sequence[int] = (128, 64, 32),
        dropout_rate: float = 0.3,
    ) -> None:
        super().__init__()
        self.asset_embedding = nn.Embedding(num_assets, asset_embedding_dim)
        widths = [lookback_window * n_features + asset_embedding_dim, *hidden_dims]
        layers: list[nn.Module] = []
        for width, next_width in itertools.pairwise(widths):
            layers += [nn.Linear(width, next_width), nn.ReLU(), nn.Dropout(dropout_rate)]
        self.mlp = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, features: Tensor, asset_ids: Tensor) -> Tensor:
        """Map features (B, L, F) and asset ids (B,) to logits (B,)."""
        flat = features.reshape(features.shape[0], -1)  # reshape: a window taken from a frame is not contiguous
        logits: Tensor = self.mlp(torch.cat([flat, self.asset_embedding(asset_ids)], dim=1))
        return logits.squeeze(-1)


class _RecurrentAttention(SignalNetwork):
    """Projection → recurrent layers → layer norm → self-attention → mean over time → classifier; any L."""

    def __init__(
        self,
        *,
        n_features: int,
        num_assets: int,
        asset_embedding_dim: int,
        hidden_dim: int,
        attention_dim: int,
        dropout_rate: float,
        use_layer_norm: bool,
    ) -> None:
        super().__init__()
        self.asset_embedding = nn.Embedding(num_assets, asset_embedding_dim)
        self.input_projection = nn.Linear(n_features + asset_embedding_dim, hidden_dim)
        self.layer_norm = nn.LayerNorm(hidden_dim) if use_layer_norm else nn.Identity()
        self.attention = SelfAttention(hidden_dim, attention_dim)
        self.dropout = nn.Dropout(dropout_rate)
        self.classifier = _classifier(hidden_dim, dropout_rate)

    @property
    @abstractmethod
    def recurrent(self) -> nn.LSTM | nn.GRU:
        """The recurrent layers, under whichever name the state dict gives them."""

    def forward(self, features: Tensor, asset_ids: Tensor) -> Tensor:
        """Map features (B, L, F) and asset ids (B,) to logits (B,)."""
        hidden, _ = self.recurrent(self.input_projection(_with_asset(features, self.asset_embedding(asset_ids))))
        pooled = self.attention(self.layer_norm(hidden)).mean(dim=1)
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits.squeeze(-1)


class LstmAttention(_RecurrentAttention):
    """LSTM with self-attention over the window."""

    def __init__(  # noqa: PLR0913 the keys of the models trained elsewhere
        self,
        *,
        n_features: int,
        num_assets: int,
        asset_embedding_dim: int = 8,
        lstm_hidden_dim: int = 64,
        lstm_num_layers: int = 2,
        attention_dim: int = 64,
        dropout_rate: float = 0.3,
        use_layer_norm: bool = True,
    ) -> None:
        super().__init__(
            n_features=n_features,
            num_assets=num_assets,
            asset_embedding_dim=asset_embedding_dim,
            hidden_dim=lstm_hidden_dim,
            attention_dim=attention_dim,
            dropout_rate=dropout_rate,
            use_layer_norm=use_layer_norm,
        )
        between = _between_layers(dropout_rate, lstm_num_layers)
        self.lstm = nn.LSTM(lstm_hidden_dim, lstm_hidden_dim, lstm_num_layers, batch_first=True, dropout=between)

    @property
    def recurrent(self) -> nn.LSTM:
        """The LSTM."""
        return self.lstm


class GruAttention(_RecurrentAttention):
    """GRU with self-attention over the window."""

    def __init__(  # noqa: PLR0913 the keys of the models trained elsewhere
        self,
        *,
        n_features: int,
        num_assets: int,
        asset_embedding_dim: int = 8,
        gru_hidden_dim: int = 64,
        gru_num_layers: int = 2,
        attention_dim: int = 64,
        dropout_rate: float = 0.3,
        use_layer_norm: bool = True,
    ) -> None:
        super().__init__(
            n_features=n_features,
            num_assets=num_assets,
            asset_embedding_dim=asset_embedding_dim,
            hidden_dim=gru_hidden_dim,
            attention_dim=attention_dim,
            dropout_rate=dropout_rate,
            use_layer_norm=use_layer_norm,
        )
        between = _between_layers(dropout_rate, gru_num_layers)
        self.gru = nn.GRU(gru_hidden_dim, gru_hidden_dim, gru_num_layers, batch_first=True, dropout=between)

    @property
    def recurrent(self) -> nn.GRU:
        """The GRU."""
        return self.gru


class CnnLstm(SignalNetwork):
    """Convolutions over time, then an LSTM, then attention with a mean over time, or the last step; any L."""

    def __init__(  # noqa: PLR0913 the keys of the models trained elsewhere
        self,
        *,
        n_features: int,
        num_assets: int,
        asset_embedding_dim: int = 8,
        cnn_filters: Sequence[int] = (32, 64),
        cnn_kernel_sizes: Sequence[int] = (3, 5),
        lstm_hidden_dim: int = 64,
        lstm_num_layers: int = 1,
        attention_dim: int = 64,
        dropout_rate: float = 0.3,
        use_attention: bool = True,
        use_pooling: bool = False,
    ) -> None:
        super().__init__()
        self.asset_embedding = nn.Embedding(num_assets, asset_embedding_dim)
        channels = [n_features + asset_embedding_dim, *cnn_filters]
        self.cnn_layers = nn.ModuleList(
            _convolution(n_in, n_out, kernel, dropout_rate, use_pooling)
            for n_in, n_out, kernel in zip(channels[:-1], channels[1:], cnn_kernel_sizes, strict=True)
        )
        between = _between_layers(dropout_rate, lstm_num_layers)
        self.lstm = nn.LSTM(channels[-1], lstm_hidden_dim, lstm_num_layers, batch_first=True, dropout=between)
        self.attention = SelfAttention(lstm_hidden_dim, attention_dim) if use_attention else None
        self.dropout = nn.Dropout(dropout_rate)
        self.classifier = _classifier(lstm_hidden_dim, dropout_rate)

    def forward(self, features: Tensor, asset_ids: Tensor) -> Tensor:
        """Map features (B, L, F) and asset ids (B,) to logits (B,)."""
        channels = _with_asset(features, self.asset_embedding(asset_ids)).transpose(1, 2)
        for layer in self.cnn_layers:
            channels = layer(channels)
        hidden, _ = self.lstm(channels.transpose(1, 2))
        pooled = hidden[:, -1] if self.attention is None else self.attention(hidden).mean(dim=1)
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits.squeeze(-1)


ARCHITECTURES: Mapping[str, type[SignalNetwork]] = {
    "mlp": Mlp,
    "lstm_attention": LstmAttention,
    "gru_attention": GruAttention,
    "cnn_lstm": CnnLstm,
}
ALIASES: Mapping[str, str] = {"lstm": "lstm_attention", "gru": "gru_attention"}


def canonical_name(name: str) -> str:
    """Return the one name of an architecture given by its name or alias, in any case. Raises ConfigError."""
    lowered = name.lower()
    canonical = ALIASES.get(lowered, lowered)
    if canonical not in ARCHITECTURES:
        raise ConfigError(f"unknown architecture {name!r}; choose one of {', '.join([*ARCHITECTURES, *ALIASES])}")
    return canonical


def dimension_names(name: str) -> tuple[str, ...]:
    """Return the keys that an architecture's `dimensions` may have. Raises ConfigError for an unknown name."""
    return tuple(inspect.signature(ARCHITECTURES[canonical_name(name)]).parameters)


def build_architecture(name: str, dimensions: Mapping[str, Dimension]) -> SignalNetwork:
    """Build the network, its weights drawn from torch's global generator.

    Raises:
        ConfigError: unknown architecture, an unknown or missing key of `dimensions`, or dimensions that do not fit.
    """
    canonical = canonical_name(name)
    known = dimension_names(canonical)
    unknown = [key for key in dimensions if key not in known]
    if unknown:
        raise ConfigError(f"{canonical} has no dimension {', '.join(unknown)}; it takes {', '.join(known)}")
    try:
        return ARCHITECTURES[canonical](**dimensions)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"the dimensions of {canonical} do not fit: {error}; it takes {', '.join(known)}") from error


def _with_asset(features: Tensor, embedding: Tensor) -> Tensor:
    """Append the asset's embedding (B, E) to every step of (B, L, F)."""
    return torch.cat([features, embedding.unsqueeze(1).expand(-1, features.shape[1], -1)], dim=2)


def _convolution(n_in: int, n_out: int, kernel: int, dropout_rate: float, pool: bool) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv1d(n_in, n_out, kernel, padding=kernel // 2),
        nn.BatchNorm1d(n_out),
        nn.ReLU(),
        nn.Dropout(dropout_rate),
    ]
    return nn.Sequential(*layers, *([nn.MaxPool1d(2)] if pool else []))


def _classifier(hidden_dim: int, dropout_rate: float) -> nn.Sequential:
    half = hidden_dim // 2
    return nn.Sequential(nn.Linear(hidden_dim, half), nn.ReLU(), nn.Dropout(dropout_rate), nn.Linear(half, 1))


def _between_layers(dropout_rate: float, num_layers: int) -> float:
    return dropout_rate if num_layers > 1 else 0.0  # torch warns about dropout on a single layer
