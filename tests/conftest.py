import numpy as np
import pytest
import torch

torch.set_num_threads(1)


def global_state():
    """Everything of the process that a call must leave as it was.

    Python's own stream is left out: the type checker of the tests draws from it. A test of
    isolation looks at it in a process of its own.
    """
    return (
        torch.get_rng_state().tolist(),
        [part if isinstance(part, (str, int, float)) else part.tolist()
         for part in np.random.get_state()],  # noqa: NPY002
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def untouched_process():
    """No test, and so no call of ours in it, moves a global stream or setting."""
    before = global_state()
    yield
    assert global_state() == before, "a global random stream or setting was moved"
