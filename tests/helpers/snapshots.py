"""What a call must leave of a model as it was, and whether it did."""

from torch.testing import assert_close


def snapshot(model):
    """Everything of a model that a call must leave as it was."""
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [id(value) for value in (*model.parameters(), *model.buffers())],
        [module.training for module in model.modules()],
        [value.requires_grad for value in model.parameters()],
        [value.grad is None for value in model.parameters()],
        [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks),
             len(m._forward_pre_hooks_with_kwargs))
            for m in model.modules()
        ],
    )  # fmt: skip


def assert_same(before, after):
    assert before[1:] == after[1:]
    assert_close(before[0], after[0], rtol=0, atol=0)
