"""Several processes that train one model: each takes its share of every batch, and all take the same step."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn

from mri_score.errors import InputError


class Processes:
    """Which of how many this process is; alone, everything here does nothing.

    There is no wrapper around the model: gradients are summed by one all-reduce after the backward pass, so that a loss
    may call the model as often as it likes, and through Jacobians.
    """

    def __init__(self, number: int = 0, count: int = 1) -> None:
        self.number, self.count = number, count

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files."""
        return self.number == 0

    def share(self, batch_size: int) -> range:
        """The items of each batch that are this process's: every item has one process.

        Errors: InputError where there are fewer items than processes.
        """
        if batch_size < self.count:
            raise InputError(
                f"training.batch_size is {batch_size}, the joint batch of {self.count} processes: give it at least one"
                " item a process"
            )
        return range(self.number * batch_size // self.count, (self.number + 1) * batch_size // self.count)

    def agree(self, model: nn.Module) -> None:
        """The weights and buffers of the first process, everywhere."""
        if self.count > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                distributed.broadcast(tensor.detach(), 0)

    def sum_gradients(self, parameters: Iterable[nn.Parameter], value: Tensor) -> Tensor:
        """Add up the gradients of all processes in place, in one message; the sum of their values comes back.

        A parameter that has no gradient in one process has none in any: the losses see to that.
        """
        if self.count == 1:
            return value.detach()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        parts = [*gradients, value.detach().reshape(1)]
        flat = torch.cat([part.flatten() for part in parts])
        distributed.all_reduce(flat)
        for part, summed in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
            part.copy_(summed.view_as(part))
        return parts[-1][0]

    def any(self, here: bool, device: torch.device) -> bool:
        """Whether it is so in one process at least."""
        if self.count == 1:
            return here
        flag = torch.tensor(float(here), device=device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag)


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Processes, torch.device]]:
    """The processes that torchrun started, and this one's device; one process where torchrun did not start it.

    Under torchrun a run that lost a process starts anew from the newest checkpoint: torchrun --max-restarts.
    """
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1 or "MASTER_ADDR" not in os.environ:
        yield Processes(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    store, number, count = next(distributed.rendezvous("env://"))
    # The store outlives the processes: after a restart the addresses of the dead would be found in it.
    store = distributed.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=number, world_size=count)
    try:
        yield Processes(number, count), device
        # Nobody leaves while another still works: torchrun would count an early end that fails as the run's failure,
        # and a thread of gloo that lets go of the last gradients while Python ends aborts the process.
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
