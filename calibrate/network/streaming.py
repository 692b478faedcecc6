"""Weights of blocks live on the host and are on the device while their block is at work, the next block's on their way.

For networks whose FP32 weights do not fit on a GPU (``--offload``). Blocks are those of activation checkpointing, which
passes with gradient need around them: a block is then run again in the backward pass, and fetched again for it. Which block
comes next is learned from what came before: after the first pass forward, and the first backward, the order is known. At most
two blocks are on the device.

diffusers' group offloading and accelerate's hooks do the same for sampling. Neither serves here: they move what is learned,
too, away from its optimizer; they fetch ahead in the order of the forward pass alone; tensors of two networks that share
memory get a host copy each; and whoever copies a network copies their hooks with it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from dq_toolchain.calibrate.network.activation_checkpointing import outermost_blocks
from dq_toolchain.calibrate.network.copiers import Block, Copier
from dq_toolchain.calibrate.network.fake_quant import WeightQuantizer
from dq_toolchain.calibrate.network.forwards import Forward, replace_forward

FURTHEST = 3
"""Visits looked ahead for a block that is not at work: a block that turns the direction is visited twice."""

_State = tuple[Block | None, Block | None, bool]
"""The block before, the block at work, and whether gradients are recorded."""
_START: _State = (None, None, False)


class Streaming:
    """Streams the blocks of networks that share tensors: the FP32 network and quantized ones made from it."""

    def __init__(self, device: torch.device, copier: Copier) -> None:
        self.device, self.copier = device, copier
        self._homes: dict[int, Tensor] = {}
        """By address, which is what tensors of two networks have in common that share memory."""
        self._block_of: WeakKeyDictionary[nn.Module, Block] = WeakKeyDictionary()
        self._moved_of: WeakKeyDictionary[WeightQuantizer, Tensor] = WeakKeyDictionary()
        self._undo: list[Callable[[], None]] = []
        self._resident: set[Block] = set()
        self._at_work: Block | None = None
        self._state: _State = _START
        self._following: dict[_State, _State] = {}

    @property
    def pinned(self) -> int:
        """Bytes of float weights that are on the host."""
        return sum(home.nbytes for home in self._homes.values())

    def attach(self, network: nn.Module) -> None:
        """Stream this network from now on; what is not streamed of it is moved to the device.

        One that shares tensors with a network that is attached already is to be made while streaming is at ``rest``, so that
        it shares their homes, too.

        Raises:
            CalibrationError: host memory cannot be pinned.
        """
        moved, elsewhere = set(), _outside_of_blocks(network)
        for module in outermost_blocks(network):
            tensors = [tensor for tensor in streamed_tensors(module) if id(tensor) not in elsewhere]
            block = Block(list(zip(tensors, self._homes_of(tensors), strict=True)))
            for tensor, home in block.weights:
                tensor.data = home
                moved.add(id(tensor))
            for part in module.modules():
                self._block_of[part] = block
                if isinstance(part, WeightQuantizer) and id(part.weight) in moved:
                    self._moved_of[part] = part.weight
            self._undo.append(replace_forward(module, partial(_Visited, self, block)))
        network._apply(lambda tensor: tensor if id(tensor) in moved else tensor.to(self.device))

    def visit(self, block: Block) -> None:
        """The block is going to compute: its weights are on the device from here until another block is visited."""
        self._state, before = (self._state[1], block, torch.is_grad_enabled()), self._state
        self._following[before] = self._state
        ahead = self._ahead(block)
        self._send_home()
        for other in self._resident - {block, ahead}:
            self._drop(other)
        self._start(block)
        self.copier.wait(block)
        for (tensor, _), there in zip(block.weights, block.copies, strict=True):
            tensor.data = there
        self._at_work = block
        if ahead is not None:
            self._start(ahead)

    def bring(self, module: nn.Module) -> None:
        """Weights of this part of a network are on the device until a block is visited; for what uses them outside of a pass."""
        block = self._block_of.get(module)
        if block is not None and block is not self._at_work:
            self.visit(block)

    def chose(self, quantizer: WeightQuantizer) -> None:
        """To be told when integers were chosen: they are moved from now on in the place of the float weight."""
        before, moved = self._moved_of.get(quantizer), quantizer.chosen
        moved = quantizer.weight if moved is None else moved
        if before is None or before is moved:
            return
        block = self._block_of[quantizer]
        self._send_home()
        self._drop(block)
        self.copier.settle()
        home = self.copier.homes([moved])[0] if quantizer.chosen is not None else self._homes[moved.data_ptr()]
        moved.data = home
        block.weights = [(tensor, its) for tensor, its in block.weights if tensor is not before] + [(moved, home)]
        self._moved_of[quantizer] = moved

    def rest(self) -> None:
        """Nothing of blocks is on the device until the next pass, whose order is learned anew."""
        self._send_home()
        for block in list(self._resident):
            self._drop(block)
        self.copier.settle()
        self._state, self._following = _START, {}

    def close(self) -> None:
        """Streaming has ended: the networks are as they were, the weights of their blocks on the host."""
        self.rest()
        while self._undo:
            self._undo.pop()()
        self._block_of.clear()
        self._moved_of.clear()
        self._homes.clear()

    def _ahead(self, block: Block) -> Block | None:
        """The next block that is not this one, if what is at work now was seen before."""
        state = self._state
        for _ in range(FURTHEST):
            if state not in self._following:
                return None
            state = self._following[state]
            if state[1] is not block:
                return state[1]
        return None

    def _start(self, block: Block) -> None:
        if block not in self._resident:
            self.copier.start(block)
            self._resident.add(block)

    def _drop(self, block: Block) -> None:
        self._resident.discard(block)
        self.copier.drop(block)

    def _send_home(self) -> None:
        if self._at_work is not None:
            for tensor, home in self._at_work.weights:
                tensor.data = home
            self._at_work = None

    def _homes_of(self, tensors: list[Tensor]) -> list[Tensor]:
        """Of each tensor; those are made that another network did not bring."""
        new = [tensor for tensor in tensors if not self._has(tensor)]
        made = {id(tensor): home for tensor, home in zip(new, self.copier.homes(new), strict=True)}
        self._homes |= {home.data_ptr(): home for home in made.values()}
        return [made[id(tensor)] if id(tensor) in made else self._homes[tensor.data_ptr()] for tensor in tensors]

    def _has(self, tensor: Tensor) -> bool:
        home = self._homes.get(tensor.data_ptr())
        return home is not None and (home.shape, home.stride()) == (tensor.shape, tensor.stride())


class _Visited:
    """A block's forward that has its weights brought first; copies of the block call their own, without that."""

    def __init__(self, streaming: Streaming, block: Block, forward: Forward) -> None:
        self.streaming, self.block, self.forward = streaming, block, forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.streaming.visit(self.block)
        return self.forward(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Forward:
        forward: Forward = copy.deepcopy(self.forward, memo)
        return forward


def _outside_of_blocks(network: nn.Module) -> set[int]:
    """Tensors, by id, that modules outside of blocks hold: what a block shares with one of them is not moved."""
    inside = {id(part) for block in outermost_blocks(network) for part in block.modules()}
    outside = [module for module in network.modules() if id(module) not in inside]
    return {id(x) for module in outside for x in (*module.parameters(recurse=False), *module.buffers(recurse=False))}


def streamed_tensors(block: nn.Module) -> Iterator[Tensor]:
    """What is moved of a block: its weights. What is learned stays on the device, and so do vectors, which are small.

    Projections of the time embedding stay, too: the temporal block runs them outside of their blocks.
    """
    staying = {
        id(tensor)
        for resnet in block.modules()
        if isinstance(resnet, ResnetBlock2D) and resnet.time_emb_proj is not None
        for tensor in (*resnet.time_emb_proj.parameters(), *resnet.time_emb_proj.buffers())
    }
    for tensor in (*block.parameters(), *block.buffers()):
        if tensor.dim() >= 2 and not tensor.requires_grad and id(tensor) not in staying:
            yield tensor
