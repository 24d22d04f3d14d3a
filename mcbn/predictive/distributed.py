"""Prediction by several processes of `torch.distributed`, which share the data."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, Literal, TypeVar, overload

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from mcbn.network.inputs import Select
from mcbn.network.loaders import Data, order_sampler, ordered_loader
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.joining import joined
from mcbn.predictive.likelihood import Likelihood, P, as_likelihood
from mcbn.predictive.predict import require_sampler, require_some, summarize_batches
from mcbn.samplers.precision import require_shared
from mcbn.samplers.sampler import Sampler

V = TypeVar("V")


@overload
def predict_distributed(
    sampler: Sampler,
    data: Data,
    likelihood: Literal["categorical"] = ...,
    *,
    group: dist.ProcessGroup | None = ...,
    batch_size: int = ...,
    select: Select | None = ...,
) -> CategoricalPredictive: ...
@overload
def predict_distributed(
    sampler: Sampler,
    data: Data,
    likelihood: Likelihood[P],
    *,
    group: dist.ProcessGroup | None = ...,
    batch_size: int = ...,
    select: Select | None = ...,
) -> P: ...
def predict_distributed(
    sampler: Sampler,
    data: Data,
    likelihood: Literal["categorical"] | Likelihood[Any] = "categorical",
    *,
    group: dist.ProcessGroup | None = None,
    batch_size: int = 256,
    select: Select | None = None,
) -> Any:
    """Return what `predict` returns, computed by all processes of a group together.

    Each process predicts a run of whole batches and gets the whole result: the same bits as one
    process. All call it with the same arguments. An error in one is raised in all. The result is on
    the CPU, or on the GPU in a group that communicates by NCCL.

    Args:
        sampler: what makes the draws, such as `MCBatchNorm`.
        data: all inputs, in every process: a tensor, a data set, or a loader in fixed order.
        likelihood: "categorical" for logits, `Gaussian(...)` for real targets.
        group: the processes; all by default.
        batch_size: examples per pass, unless a loader is given. With fewer batches than processes
            some have no work: choose it smaller then.
        select: picks the network's inputs out of a batch where the default rule does not apply.

    Raises:
        ValueError: no process group, no data, or a precision that each would choose by itself.
        RuntimeError: a process failed; names it and its error.
    """
    rank, world = _place(group)

    def prepare() -> _Share:
        require_sampler(sampler)
        require_shared(sampler)
        return _share(ordered_loader(data, batch_size), as_likelihood(likelihood), rank, world)

    def description(share: _Share) -> tuple[Any, ...]:
        return (repr(share.likelihood), len(sampler), share.batches, share.examples)

    def predict_share() -> Any:
        parts = summarize_batches(
            sampler, share.loader, share.likelihood.summarize, select=select, first=share.first
        )
        return joined(share.likelihood, parts, _example_count(share.loader))

    share, calls = _guarded(prepare, description, group)
    _require_equal(calls)
    parts = [part for part in _everywhere(predict_share, group) if part is not None]
    return require_some(joined(share.likelihood, parts, share.examples))


def _example_count(loader: DataLoader[Any]) -> int:
    return sum(map(len, loader.batch_sampler or ()))


@dataclass(frozen=True)
class _Share:
    """The part of the data that one process predicts, and what all have to agree on."""

    loader: DataLoader[Any]
    likelihood: Any
    batches: int  # of the whole data
    examples: int  # of the whole data
    first: int  # index of the loader's first batch in the whole data


def _share(loader: DataLoader[Any], likelihood: Any, rank: int, world: int) -> _Share:
    """The batches that fall to process `rank`; there may be none."""
    batches = _batch_count(loader)
    start, stop = batches * rank // world, batches * (rank + 1) // world
    examples = len(loader.dataset)  # type: ignore[arg-type]
    return _Share(_part(loader, start, stop), likelihood, batches, examples, start)


def _part(loader: DataLoader[Any], start: int, stop: int) -> DataLoader[Any]:
    """A loader of some of the batches: whole ones, so that each is forwarded as by one process."""
    return DataLoader(
        loader.dataset,
        batch_sampler=list(islice(iter(loader.batch_sampler or ()), start, stop)),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )


def _place(group: dist.ProcessGroup | None) -> tuple[int, int]:
    """This process's rank in the group, and the number of processes."""
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(
            "expected a process group, got none; start the script with torchrun and call "
            "torch.distributed.init_process_group('gloo') first, or use mcbn.predict"
        )
    rank = dist.get_rank(group)
    if rank < 0:
        raise ValueError(
            "expected a process of the group, got one that is not in it; call predict_distributed "
            "in the group's processes only"
        )
    return rank, dist.get_world_size(group)


def _batch_count(loader: DataLoader[Any]) -> int:
    if isinstance(order_sampler(loader), DistributedSampler):
        raise ValueError(
            "expected all data in every process, got a loader with a DistributedSampler, which "
            "has split them already; give the data set itself"
        )
    if not isinstance(loader.dataset, IterableDataset) and loader.batch_sampler is not None:
        try:
            return len(loader.batch_sampler)  # type: ignore[arg-type]
        except TypeError:
            pass  # a batch sampler without a length: refused below
    raise ValueError(
        "expected data in a known number of batches, got a stream or a loader without a batch "
        "size, which cannot be split; give a data set with a length"
    )


def _require_equal(calls: list[tuple[Any, ...]]) -> None:
    for rank, call in enumerate(calls):
        if call != calls[0]:
            raise ValueError(
                "expected the same (likelihood, draws, batches, examples) in all "
                f"processes, got {calls[0]} in process 0 and {call} in process {rank}; "
                "call it with the same arguments in each"
            )


@dataclass(frozen=True)
class _Head:
    """What a process is about to send: a dataclass, with empty tensors in place of its own."""

    kind: type
    values: dict[str, Any]


def _guarded(
    work: Callable[[], V], description: Callable[[V], Any], group: dist.ProcessGroup | None
) -> tuple[V, list[Any]]:
    """The result of `work` here, and a description of its result in each process.

    An error in one process is raised in all before the next exchange, so none waits for another.
    """
    error, described = None, None
    try:
        result = work()
        described = description(result)
    except Exception as caught:
        error = caught
    reports: list[Any] = [None] * dist.get_world_size(group)
    message = None if error is None else f"{type(error).__name__}: {error}"
    dist.all_gather_object(reports, (message, described), group=group)
    for rank, (failure, _) in enumerate(reports):
        if failure is not None:
            raise RuntimeError(
                f"expected every process to predict its part, got an error in process {rank}: "
                f"{failure}; correct it in that process"
            ) from error
    return result, [description for _, description in reports]


def _everywhere(work: Callable[[], V], group: dist.ProcessGroup | None) -> list[V]:
    """The result of `work` in each process, a dataclass of tensors or None, in rank order."""
    result, heads = _guarded(work, _head, group)
    return [_broadcast(result, head, rank, group) for rank, head in enumerate(heads)]


def _head(value: Any) -> _Head | None:
    if value is None:
        return None
    entries = {field.name: getattr(value, field.name) for field in fields(value)}
    announced = {
        name: torch.empty_like(entry, device="meta") if isinstance(entry, Tensor) else entry
        for name, entry in entries.items()
    }
    return _Head(type(value), announced)


def _broadcast(result: Any, head: _Head | None, rank: int, group: dist.ProcessGroup | None) -> Any:
    """What process `rank` announced by `head`: sent if it is this process, else received."""
    if head is None:
        return None
    sender = rank == dist.get_rank(group)
    device = "cuda" if dist.get_backend(group) == "nccl" else "cpu"
    values = dict(head.values)
    for name, entry in head.values.items():
        if isinstance(entry, Tensor):
            if sender:
                tensor = getattr(result, name).to(device).contiguous()
            else:
                tensor = torch.empty(entry.shape, dtype=entry.dtype, device=device)
            dist.broadcast(tensor, group=group, group_src=rank)
            values[name] = tensor
    return head.kind(**values)
