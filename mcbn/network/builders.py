"""Networks by name: a user's own function, or a network of torchvision or timm."""

import difflib
import importlib
import importlib.util
import inspect
import sys
import traceback
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.nn import Module

from mcbn.io.extras import optional
from mcbn.network.isolation import own_warnings

MAX_REASON_CHARACTERS = 250  # quoted from another library's error
# Networks that add a step to their input only where they are built with published weights.
SILENT_TRANSFORMS = frozenset(
    {"googlenet", "inception_v3", "quantized_googlenet", "quantized_inception_v3"}
)


def import_builder(name: str) -> Callable[[], Module]:
    """Import the function that `module:function` or `file.py:function` names; its code is run.

    Raises:
        ImportError: there is no such module.
        ValueError: the name has no function in it, or there is no such file or function.
    """
    source, _, function = name.rpartition(":")
    if not source:
        raise ValueError(
            f"expected --model module:function or file.py:function, got {name!r}; add the name of "
            "the function that builds the network after a colon"
        )
    if source.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(source).stem, source)
        if spec is None or spec.loader is None or not Path(source).is_file():
            raise ValueError(f"expected a Python file in --model, got {source!r}; check the path")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(source)
    if not callable(getattr(module, function, None)):
        raise ValueError(f"expected a function {function!r} in {source}, got none; check its name")
    builder: Callable[[], Module] = getattr(module, function)
    return builder


def build(name: str, *, published: bool = False, classes: int | None = None) -> Module:
    """Build the network that a name stands for.

    The name is `module:function` or `file.py:function` for a user's own, `torchvision:NAME` or
    `timm:NAME` for one of these libraries. A file may import the modules beside it, as it may when
    it is run as a script. An error in it is raised as it is, with a note of its line.

    Args:
        name: of the network.
        published: download the weights that its library publishes; a user's own has none.
        classes: of a library's network; by default those that the library chooses.

    Raises:
        ImportError: there is no such module, or timm is not installed.
        ValueError: the name has no function in it, or there is no such file, function or network;
            the published weights cannot be downloaded; it is a program in a .pt2 file.
    """
    library, network = _library(name)
    if library == "torchvision":
        return _torchvision_network(network, published, classes)
    if library == "timm":
        return _timm_network(network, published, classes)
    if name.endswith(".pt2"):
        raise _program_refusal(name)
    return _as_network(call_own(name))


def is_published(name: str) -> bool:
    """Whether a name is `torchvision:NAME` or `timm:NAME`, whose weights are published."""
    return _library(name)[0] != ""


def published_transform(name: str) -> Callable[..., Any] | None:
    """Return the transform of images that goes with the published weights of a library's network.

    It is the one for evaluation, without random crops. It is None for a user's own network, and
    for one that the library publishes no weights of.

    Args:
        name: torchvision:NAME, timm:NAME, or the name of a user's own network.

    Raises:
        ImportError: timm is not installed.
        ValueError: the library has no network of that name.
    """
    library, network = _library(name)
    if library == "torchvision":
        weights = _torchvision(network).get_model_weights(network).DEFAULT
        return _as_callable(weights.transforms())
    if library == "timm":
        timm = _timm(network)
        published = timm.get_pretrained_cfg(network)
        if published is None:  # of an architecture without any weights
            return None
        data = importlib.import_module("timm.data")
        config = data.resolve_data_config({}, pretrained_cfg=published.to_dict())
        return _as_callable(data.create_transform(**config, is_training=False))
    return None


def require_plain_input(name: str) -> None:
    """Check that a checkpoint says all about a library's network that its outputs depend on.

    Raises:
        ValueError: its input is transformed or not, which depends on how it was trained.
    """
    library, network = _library(name)
    if library == "torchvision" and network.lower() in SILENT_TRANSFORMS:
        raise ValueError(
            f"expected a function that builds {network} for --weights, got {name}, whose option "
            "transform_input a checkpoint does not keep; write a function that builds it as it was "
            "trained, with transform_input=True if it began with published weights, and give "
            "file.py:function"
        )


def _library(name: str) -> tuple[str, str]:
    """The library and the name of its network; two empty texts for a user's own."""
    library, _, network = name.partition(":")
    return (library, network) if library in ("torchvision", "timm") and network else ("", "")


def _torchvision(network: str) -> Any:
    """torchvision.models, if it has the network; imported here since that takes a second."""
    models = importlib.import_module("torchvision.models")
    _require_known("torchvision", network.lower(), models.list_models())
    return models


def _torchvision_network(network: str, published: bool, classes: int | None) -> Module:
    models = _torchvision(network)
    options: dict[str, Any] = {"weights": "DEFAULT" if published else None}
    parameters = inspect.signature(models.get_model_builder(network)).parameters
    if "weights_backbone" in parameters and not published:
        options["weights_backbone"] = None  # by default these are downloaded
    if classes is not None:
        options["num_classes"] = classes
    with own_warnings(), _download_refused(f"torchvision:{network}", published):
        warnings.simplefilter("ignore")  # torchvision warns of its own code
        return _as_network(models.get_model(network, **options))


def _timm(network: str) -> Any:
    """The package timm, if it has the network."""
    timm = optional("timm", extra="timm")
    architecture, _, tag = network.partition(".")
    _require_known("timm", architecture, timm.list_models())
    tags = timm.list_pretrained(architecture)
    if tag and network not in tags:
        _require_known("timm", network, tags)
    return timm


def _timm_network(network: str, published: bool, classes: int | None) -> Module:
    timm = _timm(network)
    options = {} if classes is None else {"num_classes": classes}
    with _download_refused(f"timm:{network}", published):
        return _as_network(timm.create_model(network, pretrained=published, **options))


def _require_known(library: str, network: str, known: Collection[str]) -> None:
    if network not in known:
        near = difflib.get_close_matches(network, known, n=3)
        advice = f"did you mean {' or '.join(near)}?" if near else "check --model"
        raise ValueError(f"expected a network that {library} has, got {network!r}; {advice}")


@contextmanager
def _download_refused(name: str, published: bool) -> Iterator[None]:
    """Say in one sentence that published weights could not be had, and what to do."""
    try:
        yield
    except Exception as error:  # each library has its own kinds of errors for that
        if not published:
            raise
        reason = " ".join(str(error).split()).rstrip(".")[:MAX_REASON_CHARACTERS]
        raise ValueError(
            f"expected to download the published weights of {name}, got {type(error).__name__} "
            f"({reason}); connect to the internet, or give a checkpoint by --weights"
        ) from error


def _program_refusal(path: str) -> ValueError:
    """The error for a program of torch.export, whose batch norms are no layers any more."""
    try:
        with zipfile.ZipFile(path) as archive:
            own = any(name.endswith("/mcbn.json") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        own = False
    if own:
        return ValueError(
            f"expected a function that builds the network, got {path}, which mcbn.export wrote and "
            "which holds its draws already; run it by torch.export.load(path).module(), or give "
            "the function that it was exported with"
        )
    return ValueError(
        f"expected a function that builds the network, got {path}, a program of torch.export, in "
        "which batch norms are no layers that MCBN could sample; give the function that builds "
        "the network before its export, and its weights by --weights"
    )


def call_own(name: str, *arguments: Any, **options: Any) -> Any:
    """Call the function that `module:function` or `file.py:function` names; its code is run.

    Raises:
        ImportError: there is no such module.
        ValueError: the name has no function in it, or there is no such file or function.
    """
    with own_function(name) as function:
        return function(*arguments, **options)


@contextmanager
def own_function(name: str) -> Iterator[Callable[..., Any]]:
    """Import the function that `module:function` or `file.py:function` names, to use it in a block.

    A file may import the modules beside it, as it may when it is run as a script. An error in it is
    raised as it is, with a note of its line.

    Raises:
        ImportError: there is no such module.
        ValueError: the name has no function in it, or there is no such file or function.
    """
    source = name.rpartition(":")[0]
    is_file = source.endswith(".py")
    folder = Path(source).absolute().parent if is_file else Path.cwd()
    path = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        with _line_noted(source, Path(source).stem if is_file else source):
            yield import_builder(name)
    finally:
        sys.path[:] = path


@contextmanager
def _line_noted(source: str, module: str) -> Iterator[None]:
    """Note at an error the line of the user's code that it came from; it is raised as it is."""
    try:
        yield
    except Exception as error:
        frames = traceback.walk_tb(error.__traceback__)
        lines = [line for frame, line in frames if frame.f_globals.get("__name__") == module]
        if lines:
            error.add_note(f"raised in line {lines[-1]} of {source}")
        raise


# Libraries without types.
def _as_network(network: Any) -> Module:
    built: Module = network
    return built


def _as_callable(transform: Any) -> Callable[..., Any]:
    made: Callable[..., Any] = transform
    return made
