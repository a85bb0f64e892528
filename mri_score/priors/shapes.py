"""The tensors of a network by its arguments alone: names and shapes, without their memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from mri_score.errors import InputError
from mri_score.networks import build_network

Shapes = dict[str, tuple[int, ...]]
FILLING = {"normal_", "uniform_", "zero_", "fill_"}
SCALING = {"mul", "__mul__", "__rmul__", "add", "__add__", "__radd__", "exp"}
DRAWING = {"randn", "rand"}
LARGEST_NETWORK = 1 << 31
"""Most weights of a network that is trained."""
MOST_TENSORS = 10_000
"""Most tensors of a network; building more takes many seconds."""
MOST_ELEMENTS = 1 << 20
"""Elements of buffers that no file stores, such as frequencies."""


def require_shapes(place: str, network: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that a network with these arguments has exactly the tensors that a file stores, before either takes memory.

    place: the start of messages, such as "a.safetensors does not fit its a.json". network: name and arguments, as in
    `build_network`. shapes: name -> shape of each stored tensor. The network is built on the meta device, where tensors
    have shapes and no values, and building ends as soon as it has more than the file.
    Errors: InputError for other tensors, and for arguments that do not fit.
    """
    if len(shapes) > MOST_TENSORS:
        raise InputError(f"{place}: it has {len(shapes)} tensors; networks have at most {MOST_TENSORS}")
    try:
        with torch.device("meta"), _Unfilled(), _at_most(place, shapes):
            built = build_network(network)
    except InputError:
        raise
    except Exception as error:  # arguments that a stranger wrote may fail in any way
        raise InputError(f"{place}: network {network.get('name')} cannot be built: {error}") from error
    wanted = {name: tuple(value.shape) for name, value in built.state_dict().items()}
    if missing := sorted(set(wanted) ^ set(shapes)):
        raise InputError(f"{place}: {len(missing)} tensors are in one of the two only, such as {missing[0]}")
    if other := [name for name, shape in wanted.items() if shape != tuple(shapes[name])]:
        name = other[0]
        raise InputError(
            f"{place}: {len(other)} tensors have another shape, such as {name}: {tuple(shapes[name])} in the file and"
            f" {wanted[name]} in the network"
        )


def require_size(place: str, network: dict[str, Any], most: int = LARGEST_NETWORK) -> None:
    """Check that a network with these arguments has at most `most` weights, before it takes memory.

    place: what it is, for messages. network: as in `require_shapes`. Errors: InputError for a larger one; arguments
    that do not fit are left to whoever builds it.
    """
    try:
        with torch.device("meta"), _Unfilled(), _at_most(place, {"": (most,)}, MOST_TENSORS):
            build_network(network)
    except InputError as error:
        if "larger than" in str(error):
            raise InputError(f"{place} has more than {most:,} weights or {MOST_TENSORS:,} tensors") from error
    except Exception:
        pass


class _Unfilled(TorchFunctionMode):
    """Values are not computed: meta tensors have none, and torch would import its compiler for it, which takes 1 s."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
        if name in DRAWING:
            return torch.empty(*args, **{key: value for key, value in kwargs.items() if key != "generator"})
        if name in FILLING | SCALING and len(tensors) == 1:  # a tensor and numbers: the shape stays
            return tensors[0]
        return func(*args, **kwargs)


class _at_most:
    """Within the block, registering more parameters than a file has tensors or elements is an InputError."""

    def __init__(self, place: str, shapes: Mapping[str, tuple[int, ...]], count: int | None = None) -> None:
        self.place, self.count = place, len(shapes) if count is None else count
        self.elements = MOST_ELEMENTS + sum(torch.Size(shape).numel() for shape in shapes.values())

    def __enter__(self) -> None:
        self.hook = register_module_parameter_registration_hook(self._registered)

    def __exit__(self, *error: object) -> None:
        self.hook.remove()

    def _registered(self, module: nn.Module, name: str, parameter: Tensor | None) -> None:
        self.count -= parameter is not None
        self.elements -= 0 if parameter is None else parameter.numel()
        if self.count < 0 or self.elements < 0:
            raise InputError(f"{self.place}: the network is larger than the file")
