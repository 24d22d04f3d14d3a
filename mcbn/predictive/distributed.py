"""Predicting with several processes of `torch.distributed`, which share the data or the draws."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial, reduce
from itertools import islice
from typing import Any, Literal, TypeVar, overload

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset

from mcbn.network.inputs import Select, ordered_loader
from mcbn.predictive.categorical import CategoricalPredictive, Totals
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.predictive.predict import Likelihood, Predictive, family_of, joined, summaries
from mcbn.samplers.batch_norm import MCBatchNorm
from mcbn.samplers.ensemble import DeepEnsemble
from mcbn.samplers.sampler import Sampler

V = TypeVar("V")


@overload
def predict_distributed(
    sampler: Sampler,
    data: Tensor | Dataset[Any] | DataLoader[Any],
    likelihood: Literal["categorical"] | Likelihood[CategoricalPredictive] = ...,
    *,
    shard: Literal["data", "draws"] = ...,
    group: dist.ProcessGroup | None = ...,
    batch_size: int = ...,
    select: Select | None = ...,
) -> CategoricalPredictive: ...
@overload
def predict_distributed(
    sampler: Sampler,
    data: Tensor | Dataset[Any] | DataLoader[Any],
    likelihood: Likelihood[GaussianPredictive],
    *,
    shard: Literal["data", "draws"] = ...,
    group: dist.ProcessGroup | None = ...,
    batch_size: int = ...,
    select: Select | None = ...,
) -> GaussianPredictive: ...
def predict_distributed(
    sampler: Sampler,
    data: Tensor | Dataset[Any] | DataLoader[Any],
    likelihood: Literal["categorical"] | Likelihood[Any] = "categorical",
    *,
    shard: Literal["data", "draws"] = "data",
    group: dist.ProcessGroup | None = None,
    batch_size: int = 256,
    select: Select | None = None,
) -> Predictive:
    """What `predict` answers, worked out by all processes of a group; each gets the whole of it.

    All processes call it with the same arguments. An error in one is raised in all. The answer
    lies on the CPU, or on the GPU in a group that talks by NCCL.

    Args:
        sampler: what makes the draws, such as `MCBatchNorm`.
        data: all inputs, in every process: a tensor, a data set, or a loader in fixed order.
        likelihood: "categorical" for logits, `Gaussian(...)` for real targets.
        shard: "data": each process predicts a run of whole batches; the numbers are those of one
            process. "draws": each process runs its part of the draws on all data; the numbers
            agree to rounding. Take it where there are fewer batches than processes.
        group: which processes; all if not given.
        batch_size: examples in a pass, unless a loader is given.
        select: picks the network's inputs out of a batch where the default rule does not.

    Raises:
        ValueError: no process group, no data, or another shard.
        RuntimeError: a process failed; names it and its error.
    """
    rank, world = _place(group)
    if shard not in ("data", "draws"):
        raise ValueError(f"expected shard 'data' or 'draws', got {shard!r}; choose one of them")

    def share() -> _Share:
        loader = ordered_loader(data, batch_size)
        whole = _Share(sampler, loader, family_of(likelihood), select, batches=_count(loader))
        return whole.of_data(rank, world) if shard == "data" else whole.of_draws(rank, world)

    def description(share: _Share) -> tuple[Any, ...]:
        return (shard, repr(share.family), len(sampler), share.batches, share.examples)

    mine, calls = _guarded(share, description, group)
    _require_equal(calls)
    parts = _by_data(mine, group) if shard == "data" else _by_draws(mine, group)
    answer = joined(parts, mine.examples)
    if answer is None:
        raise ValueError("expected at least one example to predict, got none; check the data")
    return answer


@dataclass(frozen=True)
class _Share:
    """What one process does: its sampler on its loader; without a sampler, nothing."""

    sampler: Sampler | None
    loader: DataLoader[Any]
    family: Any
    select: Select | None
    batches: int  # of the whole data
    first: int = 0  # place of the loader's first batch among them

    @property
    def examples(self) -> int:
        return len(self.loader.dataset)  # type: ignore[arg-type]

    def of_data(self, rank: int, world: int) -> "_Share":
        # Whole batches, so that each is what one process would have forwarded, bit for bit.
        start, stop = _span(self.batches, rank, world)
        whole = self.loader
        loader = DataLoader(
            whole.dataset,
            batch_sampler=list(islice(iter(whole.batch_sampler or ()), start, stop)),
            num_workers=whole.num_workers,
            collate_fn=whole.collate_fn,
            pin_memory=whole.pin_memory,
            timeout=whole.timeout,
            worker_init_fn=whole.worker_init_fn,
            multiprocessing_context=whole.multiprocessing_context,
        )
        return replace(self, loader=loader, first=start)

    def of_draws(self, rank: int, world: int) -> "_Share":
        whole = self.sampler
        start, stop = _span(len(whole or ()), rank, world)
        if not isinstance(whole, (MCBatchNorm, DeepEnsemble)):
            raise ValueError(
                "expected MCBatchNorm or DeepEnsemble, whose draws can be shared out, got "
                f"{type(whole).__name__}; use shard='data'"
            )
        if start == stop:
            return replace(self, sampler=None)
        if isinstance(whole, DeepEnsemble):
            return replace(self, sampler=replace(whole, models=whole.models[start:stop]))
        rows = {name: rows[start:stop] for name, rows in whole.bank.statistics.items()}
        return replace(self, sampler=replace(whole, bank=replace(whole.bank, statistics=rows)))

    def summaries(self, summary: Callable[[Iterator[Tensor]], V]) -> Iterator[V]:
        if self.sampler is None:
            return iter(())
        return summaries(self.sampler, self.loader, summary, select=self.select, first=self.first)


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
            "expected a process of the group, got one outside; call it in the group's processes"
        )
    return rank, dist.get_world_size(group)


def _count(loader: DataLoader[Any]) -> int:
    """How many batches there are."""
    order = getattr(loader.batch_sampler, "sampler", loader.sampler)
    if isinstance(order, DistributedSampler):
        raise ValueError(
            "expected all data in every process, got a loader with a DistributedSampler, which "
            "has shared them out already; give the data set itself"
        )
    if not isinstance(loader.dataset, IterableDataset) and loader.batch_sampler is not None:
        try:
            return len(loader.batch_sampler)  # type: ignore[arg-type]
        except TypeError:
            pass  # no length: the same refusal
    raise ValueError(
        "expected data in batches whose number is known, got a stream or a loader without a "
        "batch size, which cannot be shared out; give a data set with a length"
    )


def _span(count: int, rank: int, world: int) -> tuple[int, int]:
    """Start and stop of the part of `count` things that falls to `rank`; it may be empty."""
    return count * rank // world, count * (rank + 1) // world


def _require_equal(calls: list[tuple[Any, ...]]) -> None:
    for rank, call in enumerate(calls):
        if call != calls[0]:
            raise ValueError(
                "expected the same (shard, likelihood, draws, batches, examples) in all "
                f"processes, got {calls[0]} in process 0 and {call} in process {rank}; "
                "call it with the same arguments everywhere"
            )


def _by_data(share: _Share, group: dist.ProcessGroup | None) -> list[Predictive]:
    def work() -> Predictive | None:
        examples = sum(map(len, share.loader.batch_sampler or ()))
        return joined(share.summaries(share.family.summarize), examples)

    return [part for part in _everywhere(work, group) if part is not None]


def _by_draws(share: _Share, group: dist.ProcessGroup | None) -> Iterator[Predictive]:
    stream = share.summaries(getattr(share.family, "totals", share.family.summarize))
    # Batch by batch, so that no process ever holds the sums of more than one.
    for _ in range(share.batches):
        parts = _everywhere(partial(next, stream, None), group)
        if found := [part for part in parts if part is not None]:
            sums = isinstance(found[0], Totals)
            yield reduce(Totals.merged, found).predictive() if sums else _mixture(found)


def _mixture(parts: list[GaussianPredictive]) -> GaussianPredictive:
    """The mixture of all components, in the order of the draws."""
    variances = parts[0].variances
    if variances.ndim > 0:
        variances = torch.cat([part.variances for part in parts])
    return GaussianPredictive(torch.cat([part.means for part in parts]), variances)


@dataclass(frozen=True)
class _Head:
    """A dataclass of tensors as it is announced, with empty ones of their shape in their place."""

    kind: type
    values: dict[str, Any]


def _guarded(
    work: Callable[[], V], description: Callable[[V], Any], group: dist.ProcessGroup | None
) -> tuple[V, list[Any]]:
    """What `work` gives here, and a description of what it gave in each process.

    No process goes on alone: an error in one is known to all before the next exchange.
    """
    error, report = None, None
    try:
        mine = work()
        report = description(mine)
    except Exception as caught:
        error = caught
    reports: list[Any] = [None] * dist.get_world_size(group)
    told = None if error is None else f"{type(error).__name__}: {error}"
    dist.all_gather_object(reports, (told, report), group=group)
    for rank, (failure, _) in enumerate(reports):
        if failure is not None:
            raise RuntimeError(
                f"expected every process to predict its part, got an error in process {rank}: "
                f"{failure}; repair it there"
            ) from error
    return mine, [found for _, found in reports]


def _everywhere(work: Callable[[], V], group: dist.ProcessGroup | None) -> list[V]:
    """What `work` gives in each process, a dataclass of tensors or None, in rank order."""
    mine, heads = _guarded(work, _head, group)
    here = dist.get_rank(group)
    return [
        mine if rank == here and head is None else _sent(mine, head, rank, group)
        for rank, head in enumerate(heads)
    ]


def _head(value: Any) -> _Head | None:
    if value is None:
        return None
    found = {field.name: getattr(value, field.name) for field in fields(value)}
    announced = {
        name: torch.empty_like(entry, device="meta") if isinstance(entry, Tensor) else entry
        for name, entry in found.items()
    }
    return _Head(type(value), announced)


def _sent(mine: Any, head: _Head | None, rank: int, group: dist.ProcessGroup | None) -> Any:
    """What process `rank` announced by `head`: sent if it is this process, received if not."""
    if head is None:
        return None
    sender = rank == dist.get_rank(group)
    device = "cuda" if dist.get_backend(group) == "nccl" else "cpu"
    values = dict(head.values)
    for name, entry in head.values.items():
        if isinstance(entry, Tensor):
            if sender:
                tensor = getattr(mine, name).to(device).contiguous()
            else:
                tensor = torch.empty(entry.shape, dtype=entry.dtype, device=device)
            dist.broadcast(tensor, group=group, group_src=rank)
            values[name] = tensor
    return head.kind(**values)
