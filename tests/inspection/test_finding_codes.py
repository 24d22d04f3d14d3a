"""Codes of findings: each kind of network has its own, which is printed and in the numbers."""

import warnings

import pytest
import torch
from torch import nn

import mcbn
from mcbn.checks.catalogue import CODES

DATA = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))


class Through(nn.Module):
    """A batch norm, and what a function makes of its outputs."""

    def __init__(self, change):
        super().__init__()
        self.norm, self.change = nn.BatchNorm1d(4), change

    def forward(self, inputs):
        return self.change(self.norm, self.norm(inputs))


def trained(model):
    """The network after a pass in train mode, so that its statistics are of some data."""
    model.train()
    with torch.no_grad():
        model(DATA)
    return model.eval()


def with_value(model, name, value):
    model = trained(model)
    with torch.no_grad():
        {**dict(model.named_parameters()), **dict(model.named_buffers())}[name].fill_(value)
    return model


def random(_, outputs):
    return outputs + torch.rand_like(outputs)


def centred(_, outputs):
    return outputs - outputs.mean(0)


def warning(_, outputs):
    warnings.warn("it is late", UserWarning, stacklevel=2)
    return outputs


def last(norm, outputs):
    return norm(outputs)


def unused():
    model = trained(Through(lambda _, outputs: outputs))
    model.other = nn.BatchNorm1d(4)
    model.other.running_mean.fill_(1.0)
    return model


def early():
    return trained(nn.Sequential(nn.BatchNorm1d(4), *(nn.Linear(4, 4) for _ in range(3))))


def plain():
    return nn.Sequential(nn.BatchNorm1d(4))


MADE = {
    "MCBN101": lambda: nn.DataParallel(trained(plain())),
    "MCBN102": lambda: torch.jit.script(plain()),
    "MCBN104": lambda: nn.Sequential(nn.Linear(4, 4)),
    "MCBN106": lambda: plain().to("meta"),
    "MCBN107": lambda: nn.Sequential(nn.LazyBatchNorm1d()),
    "MCBN108": lambda: with_value(plain(), "0.weight", float("nan")),
    "MCBN109": plain,
    "MCBN110": lambda: with_value(plain(), "0.running_var", 1e-12),
    "MCBN111": lambda: trained(plain()).half(),
    "MCBN113": lambda: trained(nn.Sequential(nn.BatchNorm1d(4, momentum=None))),
    "MCBN115": lambda: nn.Sequential(nn.Linear(3, 4), *trained(plain())),
    "MCBN116": lambda: trained(Through(last)),
    "MCBN117": unused,
    "MCBN120": early,
    "MCBN121": lambda: trained(Through(random)),
    "MCBN122": lambda: trained(Through(centred)),
    "MCBN125": lambda: trained(nn.Sequential(nn.BatchNorm1d(4), nn.Softmax(1))),
    "MCBN126": lambda: trained(Through(warning)),
}


@pytest.mark.filterwarnings("ignore:it is late", "ignore:.*lazy.*", "ignore:.*torch.jit.*")
@pytest.mark.parametrize("code", MADE)
def test_each_kind_of_network_has_its_code(code):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MADE[code]()
    inputs = None if code in ("MCBN102", "MCBN106", "MCBN107", "MCBN111") else DATA
    inspection = mcbn.inspect(model, inputs, batch_size=8)
    found = [finding for finding in inspection.findings if finding.code == code]
    assert found, [str(each) for each in inspection.findings]
    for finding in inspection.findings:
        assert finding.code in CODES
        assert CODES[finding.code].judge is None
        assert str(finding).endswith(f" ({finding.code})")
        assert "MCBN1" not in finding.text
    assert f"({code})" in str(inspection).replace("\n  ", " ")
    assert code in {each["code"] for each in inspection.to_dict()["findings"]}


def test_a_batch_of_one_and_a_large_one_are_told_apart():
    model = trained(plain())
    small = mcbn.inspect(model, DATA, batch_size=1).findings
    large = {each.code for each in mcbn.inspect(model, DATA, batch_size=100_000).findings}
    # Both that it may be so, and that it is.
    assert sorted(each.blocking for each in small if each.code == "MCBN114") == [False, True]
    assert "MCBN118" not in {each.code for each in small}
    assert large == {"MCBN118"}


def test_what_collect_warns_of_is_found_once_and_by_the_same_code():
    with torch.random.fork_rng():
        model = unused()
        model.norm.eval().requires_grad_(False)
    codes = [finding.code for finding in mcbn.inspect(model, DATA, batch_size=8).findings]
    assert codes.count("MCBN117") == 1
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        mcbn.collect(model, mcbn.minibatches(DATA, batch_size=8, draws=4))
    warned = {mcbn_code(str(each.message)) for each in said}
    assert "MCBN117" in warned
    assert warned - {"MCBN001"} <= set(codes)


def mcbn_code(message):
    text, _, end = message.rpartition(" (")
    assert text
    return end.removesuffix(")")
