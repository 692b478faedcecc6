"""Streamed networks give the numbers of plain ones, bit for bit, with two blocks on the device and one copy of each a pass."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from dq_toolchain.calibrate.network.activation_checkpointing import checkpointed, outermost_blocks
from dq_toolchain.calibrate.network.streaming import streamed_tensors
from tests.calibrate.network.counting import streaming
from tests.calibrate.network.streaming_cases import (
    NETWORKS,
    both,
    call,
    first,
    gradients,
    per_block,
    prepared_of,
    quantized_of,
    streamed,
    weight_of,
)


@pytest.mark.parametrize("name", NETWORKS)
def test_passes_without_gradient(name: str) -> None:
    (plain, exact), (prepared, network, copier) = both(name), streamed(name)
    with torch.no_grad():
        for kind, (wanted, found) in {"fp32": (plain.network, prepared.network), "quantized": (exact, network)}.items():
            assert torch.equal(first(call(found)), first(call(wanted))), kind
            count = len(copier.started)
            assert count == len(outermost_blocks(prepared.network)) > 1
            assert per_block(copier) == {1}
            for seed in (2, 3, 4):  # the order is known
                copier.late = 0
                assert torch.equal(first(call(found, seed)), first(call(wanted, seed)))
                assert copier.late == (2 if seed == 2 else 0)  # that there is another pass is known from the second on
            assert copier.most == 2
            # of two blocks, both stay; else the first of the next pass is on its way
            assert copier.started.total() == (3 * count + 1 if count > 2 else count), kind
            copier.started.clear()


@pytest.mark.parametrize("name", NETWORKS)
def test_passes_with_gradient_run_blocks_again_in_reverse(name: str) -> None:
    (_, exact), (prepared, network, copier) = both(name), streamed(name)
    wanted, blocks = gradients(exact), len(outermost_blocks(prepared.network))
    for again in range(4):
        copier.late = 0
        found = gradients(network)
        assert set(found) == set(wanted)
        assert all(torch.equal(found[each], gradient) for each, gradient in wanted.items())
        if again > 1:
            assert copier.late == 0
    assert copier.most == 2
    # forward and backward turn at blocks that are there already
    assert copier.started.total() <= (4 * (2 * blocks - 1) if blocks > 2 else 4)


def test_a_gradient_of_weights_reaches_them_on_the_device() -> None:
    """What the sensitivity of layers is made of: a hook that finds the weight beside its gradient."""

    def found_in(network: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
        seen = {}
        weights = {f"{n}.weight": m.weight for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}

        def take(name: str, weight: Tensor) -> None:
            assert weight.grad is not None
            seen[name], weight.grad = (weight.detach().clone(), weight.grad), None

        handles = []
        for name, weight in weights.items():
            weight.requires_grad_()
            handles.append(weight.register_post_accumulate_grad_hook(lambda weight, name=name: take(name, weight)))
        with checkpointed(network):
            first(call(network)).square().sum().backward()
        for handle, weight in zip(handles, weights.values(), strict=True):
            handle.remove()
            weight.requires_grad_(False)
        return seen

    (plain, _), (prepared, _, _) = both("unet"), streamed("unet")
    wanted, found = found_in(plain.network), found_in(prepared.network)
    assert len(wanted) > 40
    assert set(found) == set(wanted)
    for name, (weight, gradient) in wanted.items():
        assert torch.equal(found[name][0], weight)
        assert torch.equal(found[name][1], gradient)


def test_networks_that_share_tensors_share_their_homes_and_what_is_learned_is_not_moved() -> None:
    prepared, (engine, copier) = prepared_of("unet"), streaming()
    weights = sum(tensor.nbytes for block in outermost_blocks(prepared.network) for tensor in streamed_tensors(block))
    engine.attach(prepared.network)
    assert sum(home.nbytes for home in copier.made) == weights
    network = quantized_of(prepared)
    learned = network.weight_parameters() | network.scale_parameters()
    places = {name: value.data_ptr() for name, value in learned.items()}
    engine.attach(network)
    assert sum(home.nbytes for home in copier.made) == weights
    gradients(network)
    assert {name: value.data_ptr() for name, value in learned.items()} == places
    engine.rest()
    assert copier.resident == set()
    held = {home.data_ptr() for home in copier.made}
    blocks = set(outermost_blocks(network.inner))
    places_of_blocks = tuple(f"{name}." for name, module in network.inner.named_modules() if module in blocks)
    for name, layer in network.layers.items():
        weight = weight_of(prepared, name)
        assert layer.weight_quantizer.weight.data_ptr() == weight.data_ptr()
        inside = name.startswith(places_of_blocks) and not name.endswith("time_emb_proj")
        assert (weight.data_ptr() in held) is inside


def test_chosen_integers_are_moved_in_the_place_of_weights() -> None:
    (_, exact), (_, network, copier) = both("unet"), streamed("unet")
    with torch.no_grad():
        call(network)
        whole, copier.bytes = copier.bytes, 0
        for each in (exact, network):
            for name, layer in each.layers.items():
                each.bring(name)
                layer.weight_quantizer.choose(layer.weight_quantizer.export()[0].neg())
            each.keep_weights(each.layers)
        assert copier.most == 2
        assert network.streaming is not None
        network.streaming.rest()
        copier.bytes = 0
        wanted = call(exact)[0]
        assert torch.equal(call(network)[0], wanted)
        assert copier.bytes < 0.3 * whole
        for each in (exact, network):
            for layer in each.layers.values():
                layer.weight_quantizer.chosen = None
            each.keep_weights(each.layers)
        network.streaming.rest()
        copier.bytes = 0
        again = call(network)[0]
        assert copier.bytes == whole
        assert torch.equal(again, call(exact)[0])
        assert not torch.equal(again, wanted)


class Stopped(Exception):
    pass


def test_a_pass_that_ends_in_the_middle_leaves_the_network_usable() -> None:
    (_, exact), (_, network, copier) = both("unet"), streamed("unet")
    wanted = gradients(exact)
    inside = next(layer for name, layer in network.layers.items() if name.startswith("mid_block.attentions"))

    def stop(*_: object) -> None:
        raise Stopped

    for grad in (False, True):
        handle = inside.register_forward_hook(stop)
        with torch.set_grad_enabled(grad), checkpointed(network.inner), pytest.raises(Stopped):
            call(network)
        handle.remove()
        found = gradients(network)
        assert all(torch.equal(found[name], gradient) for name, gradient in wanted.items())
    backward = inside.activation.register_full_backward_hook(stop)
    with pytest.raises(Stopped):
        gradients(network)
    backward.remove()
    copier.fails = True
    with pytest.raises(MemoryError):
        gradients(network)
    copier.fails = False
    found = gradients(network)
    assert all(torch.equal(found[name], gradient) for name, gradient in wanted.items())
    assert copier.most == 2


def test_copies_of_a_streamed_network_are_plain_and_closing_leaves_plain_networks() -> None:
    plain, (engine, copier) = prepared_of("unet"), streaming()
    prepared = prepared_of("unet")
    engine.attach(prepared.network)
    wanted = first(call(plain.network))
    own = copy.deepcopy(prepared.network)
    assert torch.equal(first(call(own)), wanted)
    assert not copier.started
    with checkpointed(prepared.network):
        assert torch.equal(first(call(prepared.network)), wanted)
    assert copier.started
    engine.close()
    copier.started.clear()
    assert torch.equal(first(call(prepared.network)), wanted)
    assert not copier.started
    assert not copier.resident
    assert not any("forward" in vars(module) for module in prepared.network.modules())


def test_weights_that_other_modules_share_stay() -> None:
    engine, copier = streaming()
    prepared = prepared_of("unet")
    network = prepared.network
    block = outermost_blocks(network)[0]
    shared = next(streamed_tensors(block))
    assert isinstance(shared, nn.Parameter)
    network.register_parameter("tied", shared)
    engine.attach(network)
    assert shared.data_ptr() not in {home.data_ptr() for home in copier.made}
    others = [tensor for tensor in streamed_tensors(block) if tensor is not shared]
    assert {tensor.data_ptr() for tensor in others} <= {home.data_ptr() for home in copier.made}


def test_a_network_that_is_dropped_is_not_kept() -> None:
    prepared, (engine, _) = prepared_of("unet"), streaming()
    engine.attach(prepared.network)
    network = quantized_of(prepared)
    network.stream(engine)
    with torch.no_grad():
        call(network)
    kept = weakref.ref(network.inner)
    engine.rest()
    del network
    gc.collect()
    assert kept() is None
    engine.close()


def test_blocks_of_flux_are_streamed_and_run_again() -> None:
    """All but some vectors and what leads in and out: 12 thousand million weights of FLUX.1, in whoever's module they are."""
    torch.manual_seed(0)
    flux = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=2, num_single_layers=3, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=16, axes_dims_rope=(2, 2, 4),
    ).eval().requires_grad_(False)  # fmt: skip
    tokens, ids = torch.randn(2, 9, 4), torch.zeros(9, 3)
    given = {"encoder_hidden_states": torch.randn(2, 5, 8), "pooled_projections": torch.randn(2, 16), "txt_ids": torch.zeros(5, 3),
             "img_ids": ids, "timestep": torch.tensor([0.5, 0.1])}  # fmt: skip

    def gradient() -> Tensor:
        x = tokens.clone().requires_grad_()
        with checkpointed(flux):
            flux(x, **given, return_dict=False)[0].square().sum().backward()
        assert x.grad is not None
        return x.grad

    wanted, (engine, copier) = gradient(), streaming(hidden=(torch.float32,))
    engine.attach(flux)
    assert torch.equal(gradient(), wanted)
    assert torch.equal(gradient(), wanted)
    assert len(copier.started) == 5
    assert copier.most == 2
