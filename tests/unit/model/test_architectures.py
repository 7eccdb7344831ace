import pytest
import torch
from torch import Tensor

from serve_app.errors import ConfigError
from serve_app.model.architectures import (
    ARCHITECTURES,
    SignalNetwork,
    build_architecture,
    canonical_name,
    dimension_names,
)

ROWS, STEPS, FEATURES, ASSETS = 9, 24, 17, 154
# Counted on the original networks, with their default dimensions and the numbers above.
ORIGINAL_PARAMETERS = {"mlp": 64_977, "lstm_attention": 84_177, "gru_attention": 67_537, "cnn_lstm": 62_033}
ORIGINAL_KEYS = {
    "mlp": {"asset_embedding.weight", "mlp.0.weight", "mlp.3.weight", "mlp.6.weight", "mlp.9.bias"},
    "lstm_attention": {"input_projection.weight", "lstm.weight_hh_l1", "layer_norm.weight", "classifier.3.bias"},
    "gru_attention": {"input_projection.weight", "gru.weight_hh_l1", "attention.query.weight", "classifier.0.weight"},
    "cnn_lstm": {"cnn_layers.0.0.weight", "cnn_layers.1.1.running_mean", "attention.value.bias", "lstm.weight_hh_l0"},
}

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def network(name: str, **dimensions: int | bool) -> SignalNetwork:
    window = {"lookback_window": STEPS} if name == "mlp" else {}
    torch.manual_seed(0)
    return build_architecture(name, {"n_features": FEATURES, "num_assets": ASSETS, **window, **dimensions}).eval()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(ROWS, STEPS, FEATURES, generator=generator), torch.arange(ROWS) * 17


@every_architecture
def test_a_batch_of_windows_gives_one_logit_each(name: str) -> None:
    logits = network(name)(*batch())
    assert logits.shape == (ROWS,)
    assert logits.isfinite().all()


@every_architecture
def test_a_row_alone_gives_the_logit_it_has_in_a_batch(name: str) -> None:
    module, (features, asset_ids) = network(name), batch()
    alone = torch.cat([module(features[i : i + 1], asset_ids[i : i + 1]) for i in range(ROWS)])
    torch.testing.assert_close(alone, module(features, asset_ids), atol=1e-6, rtol=0)


@every_architecture
def test_the_asset_changes_the_logit(name: str) -> None:
    module, (features, asset_ids) = network(name), batch()
    assert not torch.equal(module(features, asset_ids), module(features, asset_ids.flip(0)))


@every_architecture
def test_a_window_taken_from_a_column_major_frame_is_accepted(name: str) -> None:
    module, (features, asset_ids) = network(name), batch()
    strided = features.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    torch.testing.assert_close(module(strided, asset_ids), module(features, asset_ids), atol=1e-6, rtol=0)


@every_architecture
def test_state_dicts_of_the_original_networks_fit(name: str) -> None:
    module = network(name)
    assert sum(parameter.numel() for parameter in module.parameters()) == ORIGINAL_PARAMETERS[name]
    assert set(module.state_dict()) >= ORIGINAL_KEYS[name]


@every_architecture
def test_the_output_layer_is_the_one_that_gives_the_logit(name: str) -> None:
    module = network(name)
    before = module(*batch())
    with torch.no_grad():
        module.output_layer.bias.add_(2.0)
    torch.testing.assert_close(module(*batch()), before + 2.0)


@every_architecture
def test_an_unknown_dimension_is_an_error_that_names_it_and_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no dimension hidden_size.*n_features.*dropout_rate"):
        network(name, hidden_size=128)


def test_a_missing_dimension_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match="num_assets"):
        build_architecture("lstm_attention", {"n_features": FEATURES})


def test_convolutions_need_one_kernel_size_each() -> None:
    with pytest.raises(ConfigError, match="cnn_lstm"):
        build_architecture("cnn_lstm", {"n_features": 3, "num_assets": 2, "cnn_filters": [8, 8, 8]})


@pytest.mark.parametrize(
    ("alias", "name"),
    [("lstm", "lstm_attention"), ("gru", "gru_attention"), ("LSTM", "lstm_attention"), ("mlp", "mlp")],
)
def test_an_alias_leads_to_the_same_network(alias: str, name: str) -> None:
    assert canonical_name(alias) == name
    assert dimension_names(alias) == dimension_names(name)


def test_an_unknown_architecture_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'transformer'.*lstm_attention"):
        build_architecture("transformer", {})


@pytest.mark.parametrize(
    ("name", "switch", "prefix"),
    [
        ("lstm_attention", {"use_layer_norm": False}, "layer_norm"),
        ("cnn_lstm", {"use_attention": False}, "attention"),
        ("cnn_lstm", {"use_pooling": True}, "cnn_layers.0.4"),
    ],
)
def test_an_optional_part_leaves_no_trace_in_the_state_dict(name: str, switch: dict[str, bool], prefix: str) -> None:
    module = network(name, **switch)
    assert module(*batch()).shape == (ROWS,)
    assert not any(key.startswith(prefix) for key in module.state_dict())


@pytest.mark.filterwarnings("ignore:`torch.jit")  # deprecated by torch, still a file format of ours
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # torch's own shape checks inside LSTM and GRU
@every_architecture
def test_a_network_traced_with_one_window_gives_the_same_logits_for_many(name: str) -> None:
    module, (features, asset_ids) = network(name), batch()
    with torch.no_grad():
        traced = torch.jit.trace(module, (features[:1], asset_ids[:1]))  # type: ignore[no-untyped-call]  # torch has none
    torch.testing.assert_close(traced(features, asset_ids), module(features, asset_ids), atol=1e-6, rtol=0)
