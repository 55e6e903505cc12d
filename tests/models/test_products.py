import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from introspect_utils.models import products
from introspect_utils.models.load import load_model
from introspect_utils.models.products import Linear, linear, onednn_is_faster, use_onednn

AMD = {"cpu_name": "AMD EPYC", "avx512_f": True}


@pytest.fixture
def cpu(monkeypatch):
    """Says that the CPU is another one."""

    def is_now(capabilities):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
        onednn_is_faster.cache_clear()

    yield is_now
    onednn_is_faster.cache_clear()


@given(
    batch=st.lists(st.integers(0, 3), max_size=2),
    n_in=st.integers(1, 40),
    n_out=st.integers(1, 40),
    bias=st.booleans(),
    strided=st.booleans(),
)
def test_the_product_is_torchs(batch, n_in, n_out, bias, strided):
    weight, bias = torch.randn(n_out, n_in), torch.randn(n_out) if bias else None
    x = torch.randn(*batch, n_in * 2)[..., ::2] if strided else torch.randn(*batch, n_in)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "onednn_is_faster", lambda: True)
        torch.testing.assert_close(linear(x, weight, bias), nn.functional.linear(x, weight, bias))


def test_gradients_other_dtypes_and_autocast_are_torchs(cpu):
    cpu(AMD)
    plain, x = nn.Linear(8, 5), torch.randn(3, 8)
    model = copy.deepcopy(nn.Sequential(plain))
    use_onednn(model)
    layer = model[0]
    assert type(layer) is Linear and type(plain) is nn.Linear
    layer(x).sum().backward()
    plain(x).sum().backward()
    assert layer.weight.grad.equal(plain.weight.grad)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
            assert layer(x).equal(plain(x))
        assert layer.double()(x.double()).equal(plain.double()(x.double()))


@pytest.mark.parametrize(
    "capabilities, taken",
    [
        (AMD, True),
        (AMD | {"avx512_f": False}, False),
        (AMD | {"cpu_name": "Intel(R) Xeon(R)"}, False),
        ({}, False),
    ],
)
def test_it_is_taken_on_amd_alone(cpu, capabilities, taken):
    cpu(capabilities)
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    use_onednn(model)
    assert isinstance(model[0], Linear) == taken


def test_a_model_elsewhere_keeps_its_layers(cpu):
    cpu(AMD)
    model = nn.Sequential(nn.Linear(2, 2, device="meta"))
    use_onednn(model)
    assert type(model[0]) is nn.Linear


def test_a_model_that_loads_with_it_says_the_same(cpu):
    def loaded(capabilities):
        cpu(capabilities)
        model = load_model("tiny-llama", "cpu").model
        with torch.inference_mode():
            return model, model(torch.arange(2, 14).view(2, 6)).logits

    (fast, with_onednn), (plain, without) = loaded(AMD), loaded({})
    assert type(fast.get_output_embeddings()) is Linear
    assert type(plain.get_output_embeddings()) is nn.Linear
    torch.testing.assert_close(with_onednn, without)
