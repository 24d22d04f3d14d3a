"""A sweep of a trained network: right scores, an honest cost, resumed, and never stale."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import mcbn
from mcbn.study import worker
from mcbn.study.choice import BatchSizeChoice
from mcbn.study.results import Study, to_csv
from mcbn.tasks.training import build, train

SIZES, DRAWS = (4, 8, 16), 6
pytestmark = pytest.mark.filterwarnings("ignore:draws collected at")


class Pairs(Dataset):
    """Examples that are loaded one by one."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]


def make_task(**others: Any) -> mcbn.Task:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(120, 5, generator=generator)
    targets = (inputs.sum(1) > 0).long() + (inputs[:, 0] > 1).long()
    parts = [Pairs(inputs[rows], targets[rows]) for rows in (slice(60), slice(60, 85),
                                                             slice(85, 120))]  # fmt: skip
    far = 4 * torch.randn(20, 5, generator=generator)
    return mcbn.Task(*parts, outside={"far": far}, name="three", **others)


def make_network(dropout: float = 0.2) -> nn.Module:
    def layers() -> nn.Module:
        return nn.Sequential(
            *(nn.Linear(5, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(dropout)),
            *(nn.Linear(12, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3)),
        )

    return train(build(layers, seed=0), make_task().train, epochs=6, batch_size=8)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return make_network()


def swept(network: nn.Module, task: mcbn.Task | None = None, **options: Any) -> Study:
    task = make_task() if task is None else task
    return mcbn.sweep(
        network, task, **{"batch_sizes": SIZES, "draws": DRAWS, "progress": False, **options}
    )


def nll(study: Study, method: str, size: int | None = None) -> float:
    (value,) = study.values("nll", method, training_batch_size=8, batch_size=size).values()
    return value


def test_scores_are_those_of_the_samplers(network: nn.Module) -> None:
    task, study = make_task(), swept(network)

    def direct(sampler: mcbn.Sampler) -> float:
        predictive = mcbn.predict(sampler, task.test.inputs, progress=False)
        return mcbn.evaluate(predictive, task.test.targets, resamples=0)["nll"].value

    assert nll(study, "Deterministic") == pytest.approx(direct(mcbn.Deterministic(network)))
    for size in SIZES:
        batches = mcbn.minibatches(task.train.dataset(), batch_size=size, draws=DRAWS)
        bank = mcbn.collect(network, batches, progress=False)
        real = direct(mcbn.MCBatchNorm(network, bank))
        assert nll(study, "MCBN", size) == pytest.approx(real)
        if size == 8:
            for other in SIZES:
                scaled = mcbn.MCBatchNorm(network, bank.rescale(other, warn=False))
                assert nll(study, "MCBN rescaled", other) == pytest.approx(direct(scaled))
    dropout = mcbn.MCDropout(network, draws=DRAWS, seed=0)
    assert nll(study, "MC Dropout") == pytest.approx(direct(dropout))
    assert {"auroc_far_by_mutual_information", "mutual_information_far"} <= set(
        study.results[0].scores
    )


def test_the_recommendation_is_that_of_the_validation_examples(network: nn.Module) -> None:
    task, study = make_task(), swept(network)
    batches = mcbn.minibatches(task.train.dataset(), batch_size=8, draws=DRAWS)
    bank = mcbn.collect(network, batches, progress=False)
    choice = mcbn.choose_batch_size(
        network, bank, task.validation.inputs, batches=batches, bounds=(4, 16), progress=False
    )
    assert study.recommendation is not None
    found = BatchSizeChoice.from_dict(study.recommendation)
    assert found.to_dict() == choice.to_dict()
    page = mcbn.Report.from_study(study)
    assert f"M = {choice.best:.3g} has the best log score" in page.to_html()
    assert 'id="recommended"' in page.to_html()


def test_the_recommendation_is_made_by_whole_groups_and_never_stale(
    network: nn.Module, tmp_path: Path
) -> None:
    plain = swept(network, folder=tmp_path).recommendation
    patients = [k // 5 for k in range(25)]
    whole = swept(network, folder=tmp_path, validation_group=patients).recommendation
    again = swept(network, folder=tmp_path, validation_group=[*map(str, patients)]).recommendation
    assert plain is not None
    assert whole is not None
    assert whole["values"] == plain["values"]
    assert whole["low"] != plain["low"]
    assert again == whole
    assert swept(network, folder=tmp_path).recommendation == plain
    for group in ([0, 1], [7] * 25):
        with pytest.raises(ValueError, match=r"expected (a group for each of 25|groups of)"):
            swept(network, validation_group=group)


def test_the_network_is_left_as_it_was(network: nn.Module) -> None:
    given = copy.deepcopy(network).train()
    before = copy.deepcopy(given.state_dict())
    swept(given)
    assert given.training
    assert all(torch.equal(value, before[name]) for name, value in given.state_dict().items())


def test_it_resumes(network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = swept(network, folder=tmp_path)
    calls = []
    score = worker.measure
    monkeypatch.setattr(worker, "measure", lambda *given: calls.append(given) or score(*given))
    again = swept(network, folder=tmp_path)
    assert not calls
    assert again == first
    assert Study.load(tmp_path) == first
    wider = swept(network, folder=tmp_path, batch_sizes=(*SIZES, 32), trained_at=8)
    assert len(calls) == 2  # at 32, collected and rescaled
    assert len(wider.results) == len(first.results) + 2
    ends = [(study.recommendation or {})["batch_sizes"][-1] for study in (first, wider)]
    assert ends == [16, 32]


def test_other_weights_and_other_data_are_scored_anew(network: nn.Module, tmp_path: Path) -> None:
    swept(network, folder=tmp_path)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other[5].running_mean[0] += 0.5
    with pytest.warns(UserWarning, match="have changed"):
        again = swept(other, folder=tmp_path)
    assert to_csv(again) == to_csv(swept(other))
    task = make_task()
    task.test.source.inputs[0, 0] += 1
    with pytest.warns(UserWarning, match="have changed"):
        again = swept(other, task, folder=tmp_path)
    assert to_csv(again) == to_csv(swept(other, task))
    assert to_csv(again) != to_csv(swept(other))


def test_another_forward_of_the_same_layers_is_scored_anew(
    network: nn.Module, tmp_path: Path
) -> None:
    first = swept(network, folder=tmp_path)
    other = copy.deepcopy(network)
    plain = other.forward
    vars(other)["forward"] = lambda x: 2 * plain(x)  # as after an edit of the user's file
    assert repr(other) == repr(network)
    with pytest.warns(UserWarning, match="have changed"):
        again = swept(other, folder=tmp_path)
    assert to_csv(again) == to_csv(swept(other)) != to_csv(first)


def test_further_samplers_are_scored_by_every_call(network: nn.Module, tmp_path: Path) -> None:
    few = mcbn.MCDropout(network, draws=2, seed=1)
    many = mcbn.MCDropout(network, draws=30, seed=2)
    first = swept(network, folder=tmp_path, samplers={"mine": few})
    second = swept(network, folder=tmp_path, samplers={"mine": many})
    assert nll(first, "mine") != nll(second, "mine")
    assert nll(second, "mine") == nll(swept(network, samplers={"mine": many}), "mine")
    # Of as many draws, so that nothing but the sampler itself is another.
    third = swept(
        network,
        folder=tmp_path,
        samplers={"mine": mcbn.MCDropout(network, draws=30, seed=3)},
    )
    assert nll(third, "mine") != nll(second, "mine")
    draws = {result.cell.draws for result in first.select("mine", 8)}
    assert draws == {2}
    with pytest.raises(ValueError, match="expected other names"):
        swept(network, samplers={"MCBN": few})


def test_without_dropout_there_is_no_mc_dropout() -> None:
    assert "MC Dropout" not in swept(make_network(dropout=0.0)).methods


def test_the_cost_that_is_said_is_not_exceeded(
    network: nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    passed = 0

    def count(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        nonlocal passed
        passed += len(given[0])

    handle = network.register_forward_pre_hook(count)
    try:
        swept(network, progress=True, samplers={"mine": mcbn.Deterministic(network)})
    finally:
        handle.remove()
    words = re.search(r"at most about ([\d,]+) passes", capsys.readouterr().err)
    assert words is not None
    said = int(words[1].replace(",", ""))
    # The rest is checks of a few rows, whatever the data.
    assert 0.5 * said < passed <= said + 500


def test_real_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(90, 4, generator=generator)
    pairs = [
        (inputs[rows], inputs[rows].sum(1, keepdim=True))
        for rows in (slice(50), slice(50, 70), slice(70, 90))
    ]
    task = mcbn.Task(*pairs, target_mean=3.0, target_scale=2.0)
    network = build(
        lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)),
        seed=0,
    )
    train(network, task.train, epochs=20, batch_size=8, loss="mse")
    study = swept(network, task)
    assert study.regression
    assert study.recommendation is not None
    predictive = mcbn.predict(
        mcbn.Deterministic(network), pairs[2][0], mcbn.Gaussian(1.0), progress=False
    )
    rmse = float((predictive.mean - pairs[2][1]).square().mean().sqrt()) * 2.0
    (found,) = study.values("rmse", "Deterministic", training_batch_size=8).values()
    assert found == pytest.approx(rmse, rel=1e-6)


@pytest.mark.unchecked
def test_what_cannot_be_swept_is_refused(network: nn.Module) -> None:
    with pytest.raises(TypeError, match=r"expected an mcbn\.Task"):
        mcbn.sweep(network, "digits")
    with pytest.raises(ValueError, match=r"at most the 60 training examples, got 64;"):
        swept(network, batch_sizes=(8, 64))
    with pytest.raises(ValueError, match=r"at most the 60 training examples, got 61;"):
        swept(network, batch_sizes=(8, 16), trained_at=61)
    with pytest.raises(ValueError, match="batch-norm"):
        swept(build(lambda: nn.Sequential(nn.Linear(5, 3)), seed=0))


def test_another_likelihood_is_scored_anew(network: nn.Module, tmp_path: Path) -> None:
    softmax = nn.Sequential(network, nn.Softmax(1))
    said = swept(softmax, folder=tmp_path, likelihood=mcbn.Categorical("probabilities"))
    assert nll(said, "Deterministic") == pytest.approx(nll(swept(network), "Deterministic"))
    with pytest.warns(UserWarning, match="cells are run anew"):
        wrong = swept(softmax, folder=tmp_path, likelihood=mcbn.Categorical("logits"))
    assert nll(wrong, "Deterministic") > nll(said, "Deterministic") + 0.01


def test_a_likelihood_of_another_kind_of_targets_is_refused(network: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"expected mcbn\.Categorical.*multilabel=True"):
        swept(network, likelihood=mcbn.Bernoulli())
