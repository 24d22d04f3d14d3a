"""A second device made in Python, so that the laws of a GPU can be asked where there is none.

Its tensors hold their values on the processor and say that they live on "toy:0". It behaves as a
GPU does where a library can go wrong: tensors of two devices do not mix, except that a number may
be the processor's, and so may an index into a tensor of the device; nothing of the device becomes
a NumPy array; random numbers come from a stream of its own. `.to`, `.cpu`, copies, factory
functions, autograd, `vmap`, deep copies and `torch.save` work. Its kernels are the processor's, so
the numbers are the same to the last bit.

PyTorch lets no generator of the device and no pinned memory be made in Python, so there is none; a
generator of the processor is refused, as on a GPU. No result is written into a tensor of another
shape, since nothing here needs that.

It rests on an experimental function of PyTorch, which names the device for the whole process.
"""

from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_leaves, tree_map

# Operations on two devices at a time: a copy, and an index, which is their second argument.
COPIES = {"aten::copy_"}
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class Backend:
    """What PyTorch asks of a device as a whole, which it keeps as `torch.toy`."""

    def __init__(self):
        self.stream = torch.Generator()

    def is_available(self):
        return True

    is_initialized = is_available

    def device_count(self):
        return 1

    def current_device(self):
        return 0

    def _is_in_bad_fork(self):
        return False

    def get_amp_supported_dtype(self):
        return [torch.bfloat16]

    def manual_seed_all(self, seed):
        self.stream.manual_seed(seed)

    def get_rng_state(self, device=None):
        return self.stream.get_state()

    def set_rng_state(self, state, device=None):
        self.stream.set_state(state)

    def get_rng_state_all(self):
        return [self.get_rng_state()]

    def set_rng_state_all(self, states):
        self.set_rng_state(*states)

    @contextmanager
    def own_stream(self):
        """The processor's stream stands for that of the device for the block."""
        before = torch.get_rng_state()
        torch.set_rng_state(self.stream.get_state())
        try:
            yield
        finally:
            self.stream.set_state(torch.get_rng_state())
            torch.set_rng_state(before)


BACKEND = Backend()
backend_registration._setup_privateuseone_for_python_backend("toy", BACKEND)
DEVICE = torch.device("toy", 0)
KERNELS = torch.library.Library("aten", "IMPL")
ALL_KERNELS = torch.library.Library("_", "IMPL")
# What autocast runs in its own type, as on the processor.
AUTOCAST = ("conv1d", "conv2d", "conv3d", "linear", "matmul", "mm", "bmm", "addmm", "baddbmm")


class There(Tensor):
    """A tensor of the device: all that it knows is a tensor of the processor."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values):
        made = Tensor._make_wrapper_subclass(
            cls, values.size(), strides=values.stride(), storage_offset=values.storage_offset(),
            dtype=values.dtype, layout=values.layout, device=DEVICE,
        )  # fmt: skip
        made.values = values
        return made

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        _require_one_device(op, args, kwargs)
        answer = _run(op, *_here(args), **_here(kwargs))
        if kwargs.get("device") is not None and kwargs["device"].type == "cpu":
            return answer
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, There)]
        if torch.Tag.inplace_view in op.tags:
            with _shapes_only():
                op(*args, **kwargs)
        if any(each.shape != each.values.shape for each in given):
            raise NotImplementedError(f"{op} writes into a tensor of {DEVICE} of another shape")
        # A tensor that was written to is returned itself.
        known = {id(each.values): each for each in given}
        return tree_map(lambda each: known.get(id(each), _there(each)), answer)

    # What PyTorch does for tensors of a device, but not for those of a subclass.

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, other):
        Tensor.data.__set__(self, other)
        self.values = other.values

    def untyped_storage(self):
        return self.values.untyped_storage()

    def tolist(self):
        return self.cpu().tolist()

    def __format__(self, form):
        return format(self.detach().cpu(), form)

    def __reduce_ex__(self, protocol):
        parts = self.detach().cpu(), self.dtype, str(self.device), self.requires_grad
        return torch._utils._rebuild_device_tensor_from_cpu_tensor, parts

    def numpy(self, *args, **kwargs):
        raise TypeError(f"can't convert {DEVICE} device type tensor to numpy; use Tensor.cpu()")

    __array__ = numpy


def _run(op, *args, **kwargs):
    random = torch.Tag.nondeterministic_seeded in op.tags
    with BACKEND.own_stream() if random else nullcontext():
        return op(*args, **kwargs)


@contextmanager
def _shapes_only():
    """Within the block an operation is done to the shapes of its tensors alone."""
    before = torch._C._meta_in_tls_dispatch_include()
    with no_dispatch():
        torch._C._set_meta_in_tls_dispatch_include(True)
        try:
            yield
        finally:
            torch._C._set_meta_in_tls_dispatch_include(before)


def _here(tree):
    """The same arguments on the processor."""

    def moved(each):
        if isinstance(each, There):
            return each.values
        return torch.device("cpu") if isinstance(each, torch.device) else each

    return tree_map(moved, tree)


def _there(each):
    return There(each) if isinstance(each, Tensor) else each


def _require_one_device(op, args, kwargs):
    """Refuse what a GPU refuses: a tensor or a generator of the processor's in an operation."""
    name = op._schema.name
    asked = (args[0], *args[2:]) if name in INDEXED else args
    leaves = [] if name in COPIES else tree_leaves((asked, kwargs))
    if any(isinstance(each, Tensor) and not isinstance(each, There) and each.ndim > 0
           for each in leaves):  # fmt: skip
        raise RuntimeError(f"Expected all tensors to be on the same device, {DEVICE}, in {name}")
    if any(isinstance(each, torch.Generator) for each in leaves):
        raise RuntimeError(f"Expected a generator of {DEVICE}, got one of the CPU, in {name}")


def _factory(op):
    def made(*args, device=None, **kwargs):
        _require_one_device(op, args, kwargs)
        return There(_run(op, *args, device="cpu", **kwargs))

    return made


def _copied(source, target, non_blocking=False):
    _here([target])[0].copy_(_here([source])[0])
    return target


def _cast(op):
    def run(*args, **kwargs):
        kind = torch.get_autocast_dtype(DEVICE.type)
        args, kwargs = tree_map(
            lambda each: each.to(kind) if getattr(each, "dtype", None) == torch.float32 else each,
            (args, kwargs),
        )
        with torch.autocast(DEVICE.type, enabled=False):
            return op(*args, **kwargs)

    return run


def _register():
    """Kernels for autocast, for copies below all dispatch, and for what takes no tensor."""
    ALL_KERNELS.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for name in AUTOCAST:
        KERNELS.impl(name, _cast(getattr(torch.ops.aten, name).default), "AutocastPrivateUse1")
    KERNELS.impl("_copy_from", _copied, "PrivateUse1")
    for schema in torch._C._jit_get_all_schemas():
        kinds = {each.name: str(each.type) for each in schema.arguments}
        name = f"{schema.name}.{schema.overload_name}".removesuffix(".")
        if not schema.name.startswith("aten::") or not torch._C._dispatch_has_kernel(name):
            continue
        if "device" in kinds and not any("Tensor" in kind for kind in kinds.values()):
            packet = getattr(torch.ops.aten, schema.name.removeprefix("aten::"))
            op = getattr(packet, schema.overload_name or "default")
            KERNELS.impl(name.removeprefix("aten::"), _factory(op), "PrivateUse1")


_register()
