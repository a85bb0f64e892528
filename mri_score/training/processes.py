"""Training of one model by several processes: each computes a share of every batch, all make the same step."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn

from mri_score.errors import InputError


class Processes:
    """Number of this process and count of all; with a single process, all methods do nothing.

    The model is not wrapped. Gradients are summed by one all-reduce after the backward pass, so a loss may call the
    model several times, and through Jacobians.
    """

    def __init__(self, number: int = 0, count: int = 1) -> None:
        self.number, self.count = number, count

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.number == 0

    def share(self, batch_size: int) -> range:
        """The items of each batch that this process computes; every item belongs to one process.

        Errors: InputError for fewer items than processes.
        """
        if batch_size < self.count:
            raise InputError(
                f"training.batch_size is {batch_size}, the joint batch of {self.count} processes: it needs at least"
                " one item per process"
            )
        return range(self.number * batch_size // self.count, (self.number + 1) * batch_size // self.count)

    def agree(self, model: nn.Module) -> None:
        """Copy weights and buffers of the first process to all processes."""
        if self.count > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                distributed.broadcast(tensor.detach(), 0)

    def sum_gradients(self, parameters: Iterable[nn.Parameter], value: Tensor) -> Tensor:
        """Sum the gradients of all processes in place, with one all-reduce; return the sum of `value`.

        Every loss must give gradients to the same parameters in all processes.
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
        """Whether `here` is true in at least one process."""
        if self.count == 1:
            return here
        flag = torch.tensor(float(here), device=device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag)


def first_process() -> bool:
    """Whether this is the process that writes files, of those that torchrun started, or the only one."""
    return "MASTER_ADDR" not in os.environ or int(os.environ.get("RANK", 0)) == 0


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Processes, torch.device]]:
    """Yield the processes that torchrun started and the device of this one; without torchrun, a single process.

    With torchrun --max-restarts, a run that lost a process restarts from the newest checkpoint.
    """
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1 or "MASTER_ADDR" not in os.environ:
        yield Processes(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    store, number, count = next(distributed.rendezvous("env://"))
    # The store survives a restart; without a prefix, addresses of ended processes would be found in it.
    store = distributed.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=number, world_size=count)
    try:
        yield Processes(number, count), device
        # All processes end together. Otherwise torchrun could count a failing early end as a failure of the run, and a
        # thread of gloo that frees the last gradients while Python ends would abort the process.
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
