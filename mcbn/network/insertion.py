"""Dropout put into a network that has none, by hooks that are gone after the pass."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor
from torch.nn import LayerNorm, Linear, Module, ModuleDict, ModuleList, Sequential

from mcbn.network.classifier import CONVOLUTIONS, last_layer
from mcbn.network.dropout import Masks, has_dropout, masked
from mcbn.network.isolation import eval_mode, in_this_thread

# Where dropout goes: before the last weights, after each block, or before the modules named.
Place = Literal["classifier", "blocks"] | Sequence[str]
REMEDY = 'name modules, such as at=["layer3", "layer4"], before which it goes'


@dataclass(frozen=True, eq=False)
class Site:
    """A place that dropout is put in.

    Attributes:
        name: of the module.
        module: the module.
        after: whether its output is dropped from, in place of its input.
    """

    name: str
    module: Module
    after: bool = False


def insertion_sites(model: Module, at: Place) -> tuple[Site, ...]:
    """Where dropout goes into a network without any.

    Raises:
        ValueError: the network has dropout, or there is no such place.
    """
    if has_dropout(model):
        raise ValueError(
            f"expected a network without dropout to put it in, got {type(model).__name__} with "
            "dropout layers of its own; leave insert= out, and these are used"
        )
    if at == "classifier":
        return (_classifier(model),)
    if at == "blocks":
        return _blocks(model)
    modules = dict(model.named_modules())
    names = [at] if isinstance(at, str) else list(at)
    missing = [name for name in names if not name or name not in modules]
    if missing or not names:
        known = [name for name in modules if name]
        raise ValueError(
            f'expected at= to be "classifier", "blocks" or names among {known[:20]}, got '
            f"{missing or names}; see model.named_modules()"
        )
    return tuple(Site(name, modules[name]) for name in dict.fromkeys(names))


def _classifier(model: Module) -> Site:
    """Before the last dense or convolutional layer."""
    found = last_layer(model)
    if found is None:
        raise ValueError(
            f"expected a dense or convolutional layer in {type(model).__name__}, got none to put "
            f"dropout before; {REMEDY}"
        )
    return Site(*found)


def _blocks(model: Module) -> tuple[Site, ...]:
    """After each of the outermost modules whose class is there several times.

    Containers count by what is in them, and layers without children are no blocks.
    """
    composite = {
        module: name
        for name, module in model.named_modules()
        if name
        and next(module.children(), None) is not None
        and not isinstance(module, (Sequential, ModuleList, ModuleDict))
    }
    number = Counter(type(module) for module in composite)
    repeated = {name for module, name in composite.items() if number[type(module)] > 1}
    sites = [
        Site(name, module, after=True)
        for module, name in composite.items()
        if name in repeated and not any(name.startswith(f"{other}.") for other in repeated)
    ]
    if not sites:
        raise ValueError(
            f"expected blocks in {type(model).__name__}, modules of several layers whose class is "
            f"there at least twice, got none; {REMEDY}"
        )
    return tuple(sites)


@contextmanager
def inserted_masks(
    model: Module, sites: Sequence[Site], rate: float, masks: Masks
) -> Iterator[None]:
    """Apply dropout with these masks at the sites in every pass inside the block.

    A module that is called several times in a pass has a mask for each call.
    """
    calls: Counter[str] = Counter()
    with eval_mode(model), ExitStack() as hooks:
        for site in sites:
            dropped = partial(_dropped, calls, site, rate, masks)
            if site.after:
                hook = in_this_thread(partial(_after, dropped))
                hooks.enter_context(site.module.register_forward_hook(hook))
            else:
                hook = in_this_thread(partial(_before, dropped))
                hooks.enter_context(site.module.register_forward_pre_hook(hook, with_kwargs=True))
        yield


Dropped = Callable[[Any], Tensor]


def _before(
    dropped: Dropped, _module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a module, with dropout in the first."""
    if args:
        return (dropped(args[0]), *args[1:]), kwargs
    key = next(iter(kwargs), "")
    return args, {**kwargs, key: dropped(kwargs.get(key))}


def _after(dropped: Dropped, _module: Module, _args: tuple[Any, ...], output: Any) -> Any:
    """The output of a module with dropout: of several in a tuple, the first."""
    if type(output) is tuple and output:
        return (dropped(output[0]), *output[1:])
    return dropped(output)


def _dropped(calls: Counter[str], site: Site, rate: float, masks: Masks, values: Any) -> Tensor:
    if not isinstance(values, Tensor) or not values.is_floating_point():
        raise TypeError(
            f"expected real activations to drop from at {site.name!r}, got "
            f"{getattr(values, 'dtype', type(values).__name__)}; {REMEDY}"
        )
    calls[site.name] += 1
    channelwise = _by_channel(site.module, values)
    keep = masks(site.name, calls[site.name], values, rate, channelwise=channelwise)
    return masked(values, keep, rate)


def _by_channel(module: Module, values: Tensor) -> bool:
    """Whether the activations are channel maps, whose neighbours have nearly the same values.

    Then dropping single values takes away little, so channels are dropped whole.
    """
    if isinstance(module, CONVOLUTIONS):
        return values.ndim == len(module.kernel_size) + 2
    first = next(each for each in module.modules() if next(each.children(), None) is None)
    # Such layers have the channels last, but for the layer norms of maps, named so in any library.
    last = isinstance(first, Linear) or (
        isinstance(first, LayerNorm) and not type(first).__name__.endswith("2d")
    )
    return values.ndim >= 4 and not last
