"""A predictor built from files: the numbers of `predict`, for columns, in any process."""

import inspect
from functools import partial
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from models import randomized
from safetensors.torch import save_file
from torch.testing import assert_close

import mcbn
from mcbn.deployment.predictor import CLASS_COLUMNS, Predictor
from mcbn.network.checkpoints import load_network

NETS = """
import torch
from torch import nn
def build(outputs=3):
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2),
                         nn.Linear(8, outputs))
def noisy():
    return build(2)
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)
        self.table = nn.Embedding(5, 3)
    def forward(self, *, x, kind):
        return self.norm(self.mix(x)) + self.table(kind)
"""
GAUSSIAN = mcbn.Gaussian(precision=4.0)
pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")


def rows(count=23):
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Code, weights and a bank of each network, in one folder."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "nets.py").write_text(NETS)
    kinds = torch.arange(40) % 5
    x = rows(40)
    for name, inputs in (("build", x), ("noisy", x), ("Two", {"x": x, "kind": kinds})):
        network = randomized(load_network(f"{folder}/nets.py:{name}", None))
        save_file(network.state_dict(), folder / f"{name}.safetensors")
        parts = [
            {key: values[start : start + 8] for key, values in inputs.items()}
            if isinstance(inputs, dict)
            else inputs[start : start + 8]
            for start in range(0, 40, 8)
        ]
        mcbn.collect(network, parts).save(folder / f"{name}.bank")
    return folder


def arguments(folder, name="build", **others):
    place = f"{folder}/nets.py:{name}"
    return {"model": place, "weights": f"{folder}/{name}.safetensors", **others}


def banked(folder, name="build", **others):
    return arguments(folder, name, bank=f"{folder}/{name}.bank", **others)


def samplers(folder, name="build"):
    network = load_network(f"{folder}/nets.py:{name}", f"{folder}/{name}.safetensors")
    return {
        "mcbn": mcbn.MCBatchNorm(network, mcbn.Bank.load(folder / f"{name}.bank")),
        "dropout": mcbn.MCDropout(network, draws=6, seed=3),
        "deterministic": mcbn.Deterministic(network),
    }


def expected(predictive):
    """The columns of a predictive, in words of its own."""
    if isinstance(predictive, mcbn.CategoricalPredictive):
        return {name: getattr(predictive, name).numpy() for name in CLASS_COLUMNS}
    return {
        "mean": predictive.mean.numpy(),
        "sd": predictive.variance.sqrt().numpy(),
        "epistemic_sd": predictive.means.std(0, correction=0).numpy(),
        "aleatoric_sd": np.full_like(predictive.mean.numpy(), 0.5),
    }


def same(actual, wanted, tolerance=0.0):
    assert actual.keys() == wanted.keys()
    for name, values in wanted.items():
        assert_close(actual[name], values, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("method", ["mcbn", "dropout", "deterministic"])
@pytest.mark.parametrize("likelihood", ["categorical", GAUSSIAN], ids=["classes", "real"])
def test_the_numbers_are_those_of_predict(method, likelihood, files):
    # A bank is given in any case: only the method mcbn uses it.
    predictor = Predictor(**banked(files), method=method, draws=6, seed=3, likelihood=likelihood)
    predictive = mcbn.predict(samplers(files)[method], rows(), likelihood)
    wanted = expected(predictive)
    # The epistemic sd has another formula here, and so another last bit.
    same(predictor({"x": rows().numpy()}), wanted, 0.0 if likelihood == "categorical" else 1e-15)
    same(predictor(rows().numpy()), predictor({"x": rows().numpy()}))


def test_columns_that_are_not_inputs_are_returned(files):
    batch = {"x": rows().numpy(), "label": np.arange(23), "path": np.array(["a"] * 23)}
    actual = Predictor(**banked(files), inputs="x")(batch)
    assert list(actual) == ["label", "path", *CLASS_COLUMNS]
    assert actual["path"] is batch["path"]
    assert list(batch) == ["x", "label", "path"]


def test_columns_named_like_targets_are_inputs_only_if_named(files):
    x, other = rows().numpy(), rows().numpy() + 1.0
    wanted = Predictor(**banked(files))(x)
    actual = Predictor(**banked(files))({"x": x, "targets": other, "index": np.arange(23)})
    same({name: actual[name] for name in CLASS_COLUMNS}, wanted)
    actual = Predictor(**banked(files), inputs=["y"])({"x": other, "y": x})
    same({name: actual[name] for name in CLASS_COLUMNS}, wanted)


def test_several_columns_are_keyword_arguments(files):
    predictor = Predictor(**banked(files, "Two"), inputs=("x", "kind"))
    kind = np.arange(23) % 5
    actual = predictor({"x": rows().numpy(), "kind": kind, "id": np.arange(23)})
    bank, given = mcbn.Bank.load(files / "Two.bank"), {"x": rows(), "kind": torch.from_numpy(kind)}
    with torch.no_grad():
        draws = [
            torch.func.functional_call(predictor.sampler.model, bank.state(t), (), given)
            for t in range(len(bank))
        ]
    wanted = torch.stack(draws).double().softmax(2).mean(0).numpy()
    assert_close(actual["probabilities"], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [np.float64, np.float16, np.asfortranarray, lambda x: x[::-1][::-1], lambda x: x.tolist()],
    ids=["double", "half", "Fortran", "reversed", "list"],
)
def test_numbers_are_converted_to_the_type_of_the_weights(change, files):
    x = rows().half().float().numpy()
    predictor = Predictor(**banked(files))
    same(predictor({"x": change(x)}), predictor(x))


def test_read_only_memory_is_accepted_without_a_warning(files):
    x = rows().numpy()
    predictor = Predictor(**banked(files))
    wanted = predictor(x)
    x.flags.writeable = False
    same(predictor({"x": x}), wanted)


def test_the_class_and_its_arguments_go_to_another_process(files):
    made = partial(Predictor, **banked(files, likelihood=GAUSSIAN, inputs=("x",)))
    there = ForkingPickler.loads(ForkingPickler.dumps(made))
    same(there()({"x": rows().numpy()}), made()({"x": rows().numpy()}))


X = {"x": np.zeros((3, 4), np.float32)}
REFUSALS = {
    "no column": (ValueError, {}, {"index": np.arange(3)}, r"input columns \[\], got .*'index'"),
    "another column": (ValueError, {"inputs": "image"}, X, r"\['image'\], got .*\['x'\]"),
    "words": (TypeError, {}, {"x": np.array(["a", "b"])}, "numbers in the input column 'x'"),
    "ragged": (TypeError, {}, {"x": np.array([[1], [2, 3]], object)}, "got 1 axes of object"),
    "one number": (TypeError, {}, {"x": np.float32(1)}, "got 0 axes"),
    "name of an answer": (ValueError, {"inputs": "x"}, X | {"sd": np.zeros(3)}, r"\['sd'\]"),
    "a target of several": (ValueError, {"inputs": ["x", "y"]}, X | {"y": X["x"]}, r"got \['y'\]"),
    "two lengths": (ValueError, {}, X | {"z": np.zeros(2)}, r"one length, got \[3, 2\]"),
    "no example": (ValueError, {}, {"x": np.zeros((0, 4))}, "at least one example"),
    "not finite": (ValueError, {}, {"x": np.full((3, 4), np.nan)}, "finite"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_batches_that_are_refused(refusal, files):
    kind, options, batch, words = REFUSALS[refusal]
    with pytest.raises(kind, match=words):
        Predictor(**banked(files), **options)(batch)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bank": None}, "expected a bank for the method mcbn"),
        ({"method": "MCBN"}, "expected a method of .*'dropout'.*got 'MCBN'"),
        ({"likelihood": "poisson"}, "expected the likelihood"),
        ({"bank": "@noisy.bank"}, "expected"),
    ],
    ids=["no bank", "method", "likelihood", "bank of another"],
)
def test_arguments_that_are_refused(change, words, files):
    change = {k: v.replace("@", f"{files}/") if v else v for k, v in change.items()}
    with pytest.raises(ValueError, match=words):
        # Without the type checker of the tests, which would answer first.
        inspect.unwrap(Predictor.__init__)(object.__new__(Predictor), **{**banked(files), **change})


@pytest.mark.parametrize("method", ["mcbn", "dropout", "deterministic"])
def test_a_sampler_is_used_as_it_is(method, files):
    sampler = samplers(files)[method]
    predictor = Predictor(sampler, inputs="x", batch_size=8)
    assert predictor.sampler is sampler
    actual = predictor({"x": rows().numpy(), "id": np.arange(23)})
    wanted = expected(mcbn.predict(sampler, rows(), batch_size=8))
    same(actual, {"id": np.arange(23), **wanted})


def test_rows_are_predicted_in_batches_of_the_size_asked_for(files):
    model = samplers(files)["mcbn"].model
    seen = []
    hook = model[0].register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    Predictor(mcbn.Deterministic(model), batch_size=9)(rows().numpy())
    hook.remove()
    assert max(seen) == 9


def test_numbers_are_converted_to_the_type_of_the_weights_of_an_ensemble(files):
    members = [samplers(files)["deterministic"].model.double() for _ in range(2)]
    ensemble = mcbn.DeepEnsemble(members)
    x = rows().double() / 3  # not the same in single precision
    same(Predictor(ensemble)(x.numpy()), expected(mcbn.predict(ensemble, x)))


def test_a_sampler_goes_to_another_process(files):
    sampler = samplers(files)["mcbn"]
    there = ForkingPickler.loads(ForkingPickler.dumps(partial(Predictor, sampler)))
    same(there()(rows().numpy()), Predictor(sampler)(rows().numpy()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": "w.pt", "draws": 9}, r"batch_size alone with a sampler, got \['draws', 'wei"),
        ({"bank": "a.bank"}, r"got \['bank'\]"),
        ({"likelihood": "poisson"}, "expected the likelihood"),
    ],
)
def test_arguments_that_do_not_go_with_a_sampler_are_refused(change, words, files):
    with pytest.raises(ValueError, match=words):
        inspect.unwrap(Predictor.__init__)(
            object.__new__(Predictor), samplers(files)["mcbn"], **change
        )


@pytest.mark.unchecked
def test_a_network_in_the_place_of_its_sampler_is_refused(files):
    with pytest.raises(TypeError, match=r"wrap the network by mcbn\.MCBatchNorm"):
        Predictor(samplers(files)["mcbn"].model)


def test_a_precision_that_each_worker_would_choose_is_refused(files):
    sampler = samplers(files)["mcbn"]
    chooses = mcbn.MCBatchNorm(sampler.model, sampler.bank, precision="auto")
    with pytest.raises(ValueError, match="expected one precision for all processes"):
        Predictor(chooses)


class Mixing(torch.nn.Sequential):
    """Centers each batch by its own mean."""

    def forward(self, x):
        y = super().forward(x)
        return y - y.mean(0)


@pytest.mark.filterwarnings("ignore:.*MCBN122")
def test_a_network_that_mixes_examples_is_refused_though_its_batch_is_whole(files):
    """The numbers would depend on how Ray cuts the rows."""
    plain = samplers(files)["deterministic"].model
    predictor = Predictor(mcbn.Deterministic(Mixing(*plain).eval()))
    with pytest.raises(ValueError, match="depends on the others in its batch; pass batches that"):
        predictor(rows().numpy())


def test_a_checkpoint_that_does_not_fit_is_refused(files, tmp_path):
    with pytest.raises(ValueError, match=r"weights of a Two in .*build\.safetensors, got others"):
        load_network(f"{files}/nets.py:Two", f"{files}/build.safetensors")
    path = str(tmp_path / "numbered.pt")
    torch.save({0: torch.ones(2)}, path)
    with pytest.raises(ValueError, match=r"numbered\.pt.*\(names that are not text\); save a"):
        load_network(f"{files}/nets.py:build", path)
