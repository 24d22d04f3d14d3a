"""Dense data scored batch by batch: the numbers of all pixels at once, and flat memory."""

import pytest
import torch
from pictures import VOID, pictures, sampler_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mcbn
from mcbn.evaluation.batches import evaluate_batches
from mcbn.evaluation.class_images import ClassImages, _bins_of_cells
from mcbn.evaluation.class_scores import class_columns, rows_of_positions
from mcbn.evaluation.image_sums import CELLS

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
RANKED = {"aurc", "e_aurc", "augrc", "auroc_of_errors"}
MASS = {"ece_equal_mass", "ece_debiased"}


def assert_scores(found, whole):
    assert (found.examples, found.clusters) == (whole.examples, whole.clusters)
    assert list(found.keys() ^ whole.keys()) == []
    for name, score in whole.items():
        # Pixels whose confidences agree to a cell count as equal: bins of equal mass differ by some
        # pixels, and with them what chance is thought to add in few resamples.
        near = {"abs": 4 / CELLS} if name in RANKED else {"abs": 2e-3} if name in MASS else {}
        near = {"abs": 2 / CELLS} if name == "pit_error" else near or {"rel": 1e-9, "abs": 1e-12}
        assert found[name].value == pytest.approx(score.value, **near), name
        near = {"abs": 0.02} if name in MASS else near
        ends = found[name].low, found[name].high
        assert ends == pytest.approx((score.low, score.high), **near), name


@pytest.mark.parametrize("batch_size", [1, 5, 14])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_scores_are_those_of_all_pixels_at_once(batch_size, grouped):
    x, y = pictures()
    y[3] = VOID  # an image without a labelled pixel
    group = [k // 2 for k in range(14)] if grouped else None
    sampler = sampler_of(4, x)
    options = {"ignore_index": VOID, "group": group, "resamples": 40}
    whole = mcbn.evaluate(mcbn.predict(sampler, x), y, **options)
    found = evaluate_batches(
        sampler, DataLoader(TensorDataset(x, y), batch_size=batch_size), **options
    )
    assert_scores(found, whole)


def test_pictures_without_void_pixels_have_no_clusters_of_their_own():
    x, y = pictures(void=0)
    sampler = sampler_of(3, x)
    found = evaluate_batches(sampler, TensorDataset(x, y), resamples=30)
    assert_scores(found, mcbn.evaluate(mcbn.predict(sampler, x), y, resamples=30))
    assert found.minus(mcbn.evaluate(mcbn.predict(sampler, x), y, resamples=30))


@pytest.mark.parametrize("noise", ["fixed", "own"])
def test_real_values_of_pixels_have_the_scores_of_all_at_once(noise):
    x, _ = pictures()
    generator = torch.Generator().manual_seed(3)
    y = x.sum(1, keepdim=True) + 0.3 * torch.randn(14, 1, 24, 18, generator=generator)
    likelihood = mcbn.Gaussian(4.0) if noise == "fixed" else mcbn.Gaussian()
    sampler = sampler_of(1 if noise == "fixed" else 2, x)
    whole = mcbn.evaluate(mcbn.predict(sampler, x, likelihood), y, resamples=40)
    found = evaluate_batches(sampler, TensorDataset(x, y), likelihood, resamples=40)
    assert_scores(found, whole)


def test_the_density_of_a_dense_prediction_is_of_each_value():
    """Not joint over an image, whose best draw would be all that counts."""
    means = torch.tensor([0.0, 2.0]).reshape(2, 1, 1, 1, 1).expand(2, 1, 1, 1, 2)
    predictive = mcbn.Gaussian(1.0).summarize(means)
    targets = torch.tensor([[[[0.0, 2.0]]]])
    normal = torch.distributions.Normal(torch.tensor([0.0, 2.0]), 1.0)
    expected = normal.log_prob(torch.tensor(0.0)).exp().mean().log()
    density = predictive.log_prob(targets)
    assert density.shape == targets.shape
    torch.testing.assert_close(density.float(), expected.expand(targets.shape))
    pll = mcbn.evaluate(predictive, targets, resamples=0)["pll"].value
    assert pll == pytest.approx(float(expected))


def test_what_is_kept_of_an_image_does_not_grow_with_its_pixels():
    sampler = sampler_of(4, pictures()[0], draws=2)
    kept = []
    for size in (128, 512):
        x, y = pictures(1, size=(size, size))
        sums = ClassImages()
        (part,) = mcbn.predict_batches(sampler, x)
        sums.add(rows_of_positions(class_columns(part, y.clamp(max=2))))
        entries = [len(values) for each in sums.sums.entries.values() for _, values in each]
        assert max(entries) <= CELLS
        kept.append(sum(entries))
        held = [value for value in vars(sums).values() if isinstance(value, torch.Tensor)]
        assert not held
    assert kept[1] < 4 * CELLS + 100


def test_the_cells_of_a_bin_of_equal_mass_hold_its_pixels():
    x, y = pictures(4)
    sums = ClassImages()
    for part, labels in zip(
        mcbn.predict_batches(sampler_of(3, x), x, batch_size=1), y.split(1), strict=True
    ):
        sums.add(rows_of_positions(class_columns(part, labels.clamp(max=2))))
    mass = sums._mass()
    of_cell = _bins_of_cells(mass)
    counts = of_cell.bincount(torch.from_numpy(sums.sums.total("rows")), minlength=len(mass.counts))
    assert counts.tolist() == mass.counts.tolist()
    assert float(mass.counts.double().std()) < 0.05 * float(mass.counts.sum())


def test_what_is_not_dense_is_refused():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 5, generator=generator)
    y = torch.randint(3, (20,), generator=generator)
    with torch.random.fork_rng():
        model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).eval()
    with pytest.raises(ValueError, match=r"with positions.*use mcbn\.evaluate"):
        evaluate_batches(mcbn.Deterministic(model), TensorDataset(x, y))
    pixels, labels = pictures()
    sampler = sampler_of(4, pixels)
    with pytest.raises(ValueError, match="images with labelled pixels"):
        evaluate_batches(
            sampler, TensorDataset(pixels, torch.full_like(labels, VOID)), ignore_index=VOID
        )
    with pytest.raises(
        ValueError, match="expected ignore_index with predictions of classes or labels only"
    ):
        evaluate_batches(
            sampler_of(1, pixels), TensorDataset(pixels, pixels[:, :1]), mcbn.Gaussian(1.0),
            ignore_index=VOID,
        )  # fmt: skip
    with pytest.raises(TypeError, match="expected batches of inputs and their targets"):
        evaluate_batches(sampler, TensorDataset(pixels))
