"""Networks by name: a user's function, those of libraries, and the transforms that go with them."""

import re
import sys
import traceback

import pytest
import torch
from torch import nn

from mcbn.network.builders import build, import_builder, is_published, published_transform
from mcbn.network.checkpoints import load

timm = pytest.importorskip("timm")
models = pytest.importorskip("torchvision.models")
# The smallest that have batch norms.
TORCHVISION, TIMM = "torchvision:shufflenet_v2_x0_5", "timm:test_efficientnet"


@pytest.fixture(autouse=True)
def own_stream():
    with torch.random.fork_rng(devices=[]):
        yield


def state(name, **options):
    """The state of a library's network, all of it at random."""
    library, _, network = name.partition(":")
    if library == "timm":
        made = timm.create_model(network, **options)
    else:
        made = models.get_model(network, weights=None, **options)
    for values in made.state_dict().values():
        if values.is_floating_point():
            values.copy_(torch.rand_like(values) + 0.5)
    return dict(made.state_dict())


def saved(folder, checkpoint):
    torch.save(checkpoint, folder / "w.pt")
    return str(folder / "w.pt")


def require_equal(network, wanted):
    assert network.state_dict().keys() == wanted.keys()
    torch.testing.assert_close(dict(network.state_dict()), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("name", [TORCHVISION, TIMM])
@pytest.mark.parametrize("classes", [None, 1, 7])
def test_the_number_of_classes_is_that_of_the_checkpoint(name, classes, tmp_path):
    wanted = state(name, **({} if classes is None else {"num_classes": classes}))
    prefixed = {f"model.{key}": values for key, values in wanted.items()}
    answer = load(name, saved(tmp_path, {"state_dict": prefixed}))
    require_equal(answer.network, wanted)
    assert (answer.reading.key, answer.reading.prefix) == ("state_dict", "model.")
    assert not answer.network.training


def test_two_numbers_of_classes_are_refused_and_chosen_between(tmp_path):
    seven, whole = state(TORCHVISION, num_classes=7), state(TORCHVISION)
    path = saved(tmp_path, {"tuned": seven, "before": whole})
    with pytest.raises(ValueError, match=r"2 that fit and differ; choose by --key .* or --key"):
        load(TORCHVISION, path)
    require_equal(load(TORCHVISION, path, key="tuned").network, seven)
    require_equal(load(TORCHVISION, path, key="before").network, whole)


@pytest.mark.parametrize(
    ("name", "options"),
    [("squeezenet1_1", {}), ("lraspp_mobilenet_v3_large", {"weights_backbone": None})],
)
def test_other_heads_are_counted_too(name, options, tmp_path):
    wanted = state(f"torchvision:{name}", num_classes=4, **options)
    require_equal(load(f"torchvision:{name}", saved(tmp_path, wanted)).network, wanted)


def other_width(wanted):
    return wanted | {"conv1.0.weight": torch.ones(25, 3, 3, 3)}


def other_head(wanted):
    head = {f"fc.1.{key}": wanted.pop(f"fc.{key}") for key in ("weight", "bias")}
    return wanted | head


def long_counter(wanted):
    return wanted | {"conv1.1.num_batches_tracked": torch.arange(5)}


def claimed(wanted):
    """A head of more classes than there is memory for, in a file of few bytes."""
    weight = torch.ones(1, 1).expand(10**10, wanted["fc.weight"].shape[1])
    return wanted | {"fc.weight": weight, "fc.bias": torch.ones(1).expand(10**10)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_width, r"conv1\.0\.weight has shape \(25, 3, 3, 3\) instead of \(24, 3, 3, 3\); c"),
        (long_counter, r"num_batches_tracked has shape \(5,\) instead of \(\);"),
        (other_head, r"fc\.weight is missing, fc\.bias is missing, fc\.1\.weight is not in the ne"),
        (claimed, r"fc\.weight has shape \(10000000000, 1024\) instead of \(1000, 1024\)"),
        (lambda wanted: wanted | {"fc.bias": torch.ones(5)}, r"fc\.bias has shape \(5,\) instead"),
        (
            lambda wanted: wanted | {"fc.bias": torch.ones(5), "fc.weight": torch.ones(4, 1024)},
            r"fc\.weight has shape \(4, 1024\)",
        ),
    ],
)
def test_other_heads_are_refused(change, words, tmp_path):
    path = saved(tmp_path, change(state(TORCHVISION)))
    with pytest.raises(ValueError, match=f"{words}.*or give a function that builds the network"):
        load(TORCHVISION, path)


def test_a_network_whose_input_a_checkpoint_does_not_tell_is_refused(tmp_path):
    path = saved(tmp_path, {"x": torch.ones(1)})
    with pytest.raises(
        ValueError, match="option transform_input a checkpoint does not keep; write"
    ):
        load("torchvision:inception_v3", path)


def test_without_a_checkpoint_torchvision_downloads(monkeypatch):
    wanted = state(TORCHVISION)
    urls = []

    def download(url, *_, **__):
        urls.append(url)
        return wanted

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    answer = load(TORCHVISION, None)
    require_equal(answer.network, wanted)
    assert answer.reading is None
    assert urls == [models.get_model_weights("shufflenet_v2_x0_5").DEFAULT.url]
    # Where weights are to come from elsewhere, nothing is downloaded.
    build(TORCHVISION)
    build("torchvision:lraspp_mobilenet_v3_large")
    assert len(urls) == 1


def test_without_a_checkpoint_timm_downloads(monkeypatch):
    wanted = state(TIMM)
    asked = []

    def download(model, pretrained_cfg, **_):
        asked.append(pretrained_cfg["hf_hub_id"])
        model.load_state_dict(wanted)

    monkeypatch.setattr("timm.models._builder.load_pretrained", download)
    require_equal(load(TIMM, None).network, wanted)
    assert asked == ["timm/test_efficientnet.r160_in1k"]
    build(TIMM)
    assert len(asked) == 1


def test_a_failed_download_is_refused_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    advice = "; connect to the internet, or give a checkpoint by --weights$"
    with pytest.raises(ValueError, match=f"published weights of {TORCHVISION}, got .*{advice}"):
        load(TORCHVISION, None)

    def fail(*_, **__):
        raise ConnectionResetError("reset\nby peer.")

    monkeypatch.setattr("timm.models._builder.load_pretrained", fail)
    told = rf"weights of {TIMM}, got ConnectionResetError \(reset by peer\){advice}"
    with pytest.raises(ValueError, match=told):
        load(TIMM, None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torchvision:resnt18", "torchvision has, got 'resnt18'; did you mean resnet18 or"),
        ("torchvision:zzzz", "torchvision has, got 'zzzz'; check --model"),
        ("timm:resnt18", "timm has, got 'resnt18'; did you mean resnet18 or"),
        ("timm:resnet18.nonsense", r"got 'resnet18\.nonsense'; did you mean resnet18\."),
        ("timm:hf_hub:someone/net", "timm has, got 'hf_hub:someone/net'; check --model"),
        ("torchvision", "module:function or file.py:function, got 'torchvision'; add"),
    ],
)
def test_unknown_names_are_refused_with_near_ones(name, words):
    with pytest.raises(ValueError, match=f"^expected .*{words}"):
        load(name, None)


def test_timm_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    for call in (build, published_transform):
        with pytest.raises(
            ImportError, match=r"the package timm, .*; .* pip install 'mcbn\[timm\]'"
        ):
            call(TIMM)


def test_capitals_and_tags_are_of_the_name(tmp_path):
    wanted = state(TORCHVISION)
    path = saved(tmp_path, wanted)
    require_equal(load("torchvision:ShuffleNet_V2_x0_5", path).network, wanted)
    path = saved(tmp_path, state(TIMM))
    require_equal(load(f"{TIMM}.r160_in1k", path).network, torch.load(path, weights_only=True))


def test_a_program_is_refused(tmp_path):
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval()
    program = torch.export.export(network, (torch.zeros(2, 4),))
    for own in ({}, {"mcbn.json": "{}"}):
        torch.export.save(program, tmp_path / "net.pt2", extra_files=own)
        words = "which mcbn.export wrote and" if own else "in which batch norms are no layers"
        with pytest.raises(ValueError, match=rf"^expected .*net\.pt2, .*{words}.*; .*function"):
            load(f"{tmp_path}/net.pt2", None)
    with pytest.raises(ValueError, match=r"a program of torch\.export"):
        load("none.pt2", None)


def test_the_transform_is_the_one_for_evaluation():
    image = torch.rand(3, 300, 400)
    weights = models.get_model_weights("shufflenet_v2_x0_5").DEFAULT
    actual = published_transform(TORCHVISION)(image)
    torch.testing.assert_close(actual, weights.transforms()(image), rtol=0, atol=0)
    from torchvision.transforms.functional import to_pil_image  # noqa: PLC0415 - after the skip

    for name in (TIMM, "timm:resnet18.a1_in1k", "timm:resnet18.tv_in1k"):
        config = timm.data.resolve_model_data_config(timm.create_model(name.partition(":")[2]))
        wanted = timm.data.create_transform(**config, is_training=False)
        picture = to_pil_image(image)
        torch.testing.assert_close(
            published_transform(name)(picture), wanted(picture), rtol=0, atol=0
        )


def test_a_users_network_has_no_transform():
    assert published_transform("nets.py:build") is None
    assert published_transform("torchvision.models:resnet18") is None
    assert [is_published(name) for name in (TORCHVISION, TIMM, "timm", "a.py:timm")] == [
        True, True, False, False,
    ]  # fmt: skip


def test_every_network_of_torchvision_has_published_weights():
    for name in models.list_models():
        assert models.get_model_weights(name).DEFAULT is not None


USER = """import helper_of_a_user
def build():
    values = {}
    return values["missing"]

def helped():
    return helper_of_a_user.make()

number = 3
"""
HELPER = "def make():\n    raise OSError('no disk')\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "helper_of_a_user", raising=False)
    (tmp_path / "nets_of_a_user.py").write_text(USER)
    (tmp_path / "helper_of_a_user.py").write_text(HELPER)
    (tmp_path / "broken.py").write_text("x = 1\nraise KeyError('on import')\n")
    yield tmp_path
    sys.modules.pop("helper_of_a_user", None)
    sys.modules.pop("nets_of_a_user", None)


@pytest.mark.parametrize(
    ("name", "error", "line"),
    [
        ("nets_of_a_user.py:build", KeyError, 4),
        ("nets_of_a_user.py:helped", OSError, 7),
        ("broken.py:build", KeyError, 2),
        ("nets_of_a_user:build", KeyError, 4),
    ],
)
def test_an_error_of_the_users_own_is_raised_with_its_line(name, error, line, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(error) as told:
        load(name, None)
    assert told.type is error
    source = name.partition(":")[0]
    assert told.value.__notes__ == [f"raised in line {line} of {source}"]
    text = "".join(traceback.format_exception(told.value))
    assert re.search(rf"nets_of_a_user\.py|broken\.py\", line {line}", text)


@pytest.mark.parametrize("name", ["nets_of_a_user.py:number", "nets_of_a_user.py:absent"])
def test_what_is_no_function_is_refused(name, folder):
    with pytest.raises(ValueError, match=r"^expected a function '\w+' in .*, got none;") as told:
        load(f"{folder}/{name}", None)
    assert not hasattr(told.value, "__notes__")
    with pytest.raises(ValueError, match="expected a Python file in --model"):
        import_builder("absent.py:build")
