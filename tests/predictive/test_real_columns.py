"""Means and spreads of regression: every output is taken, and parts do not contradict the whole."""

import numpy as np
import pytest
from given_files import read

import mcbn


def table(**columns):
    rows = zip(*columns.values(), strict=True)
    return "\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows), ""])


def outputs(*names, **others):
    given = {}
    for place, name in enumerate(names):
        given |= {f"mean_{name}": (place, place), f"sd_{name}": (1, 1)}
    for place, name in reversed(list(enumerate(names))):
        given[f"target_{name}"] = (place + 1, place + 3)
    return given | others


@pytest.mark.parametrize(
    "names", [("0", "1"), ("1", "7", "30"), ("30", "7", "1"), ("price", "area"), ("t1", "t2"),
              ("2024", "2025"), ("01", "02"), ("a_b", "a_c")],
)  # fmt: skip
def test_every_output_is_taken_with_its_own_target(names, tmp_path):
    found = read(tmp_path, table(**outputs(*names)))
    assert found.targets.shape == (2, len(names))
    errors = (found.targets - found.predictive.mean).tolist()
    assert errors == [[1.0] * len(names), [3.0] * len(names)]
    assert not found.columns
    assert mcbn.evaluate(found.scored, found.targets, resamples=0)["rmse"].value == 5**0.5


@pytest.mark.parametrize(
    ("columns", "reason", "remedied"),
    [
        (outputs("1", "7") | {"mean_30": (0, 0)}, "got 'mean_30' alone", outputs("1", "7")),
        (outputs("1", "7") | {"sd_30": (1, 1)}, "got 'a spread of 30' alone", outputs("1", "7")),
        ({k: v for k, v in outputs("1", "7").items() if k != "target_7"}, "as many columns",
         outputs("1", "7")),
        (outputs("1", "7") | {"target_30": (0, 0)}, "no mean, or no target, of '30'",
         outputs("1", "7")),
        (outputs("1") | {"mean": (0, 0), "sd": (1, 1)}, "got 'mean' and 'mean_1'; rename",
         outputs("1")),
        ({"mean": (0, 1), "target": (0, 1)}, "column sd or std or variance beside the mean",
         {"mean": (0, 1), "sd": (1, 1), "target": (0, 1)}),
        ({"mean": (0, 1), "sd": (1, -1), "target": (0, 1)}, "got -1 in row 2",
         {"mean": (0, 1), "sd": (1, 1), "target": (0, 1)}),
    ],
)  # fmt: skip
def test_an_output_without_a_partner_is_refused(columns, reason, remedied, tmp_path):
    with pytest.raises(ValueError, match=reason):
        read(tmp_path, table(**columns))
    assert read(tmp_path, table(**remedied)).targets is not None


PLAIN = {"mean": (0.0, 1.0), "target": (0.5, 0.5)}


@pytest.mark.parametrize(
    ("columns", "variance", "epistemic"),
    [
        ({"sd": (1, 2)}, [1, 4], None),
        ({"std": (1, 2)}, [1, 4], None),
        ({"sigma": (1, 2)}, [1, 4], None),
        ({"var": (1, 4)}, [1, 4], None),
        ({"variance": (1, 4), "sd": (1, 2)}, [1, 4], None),
        ({"sd": (1, 2), "epistemic_sd": (0, 1)}, [1, 4], [0, 1]),
        ({"sd": (1, 2), "aleatoric_sd": (1, 1)}, [1, 4], [0, 3]),
        ({"epistemic_sd": (3, 0), "aleatoric_sd": (4, 1)}, [25, 1], [9, 0]),
        ({"epistemic_variance": (9, 0), "aleatoric_variance": (16, 1)}, [25, 1], [9, 0]),
        ({"sd": (1, 0.33), "epistemic_sd": (0.7071, 0.33)}, [1, 0.1089], [0.49999, 0.1089]),
    ],
)
def test_spreads_and_their_parts(columns, variance, epistemic, tmp_path):
    found = read(tmp_path, table(**PLAIN, **columns)).predictive
    np.testing.assert_allclose(found.variance, variance, rtol=1e-12)
    if epistemic is None:
        assert found.epistemic_variance is None
    else:
        np.testing.assert_allclose(found.epistemic_variance, epistemic, rtol=1e-4)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"sd": (1, 1), "epistemic_sd": (0.5, 2)}, "at most the whole one .* got 2 of 1 in row 2"),
        ({"sd": (1, 1), "aleatoric_sd": (2, 1)}, "an aleatoric .* got 2 of 1 in row 1"),
        ({"sd": (1, 1), "epistemic_sd": (1, 0.6), "aleatoric_sd": (1, 0.8)}, "1.41421 in row 1"),
        ({"sd": (2, 1), "variance": (2, 1)}, "got 2 and 1.41421 in row 1"),
        ({"sd": (1, 1), "epistemic_sd": (1, -0.5)}, "of at least 0, .* got -0.5 in row 2"),
    ],
)
def test_parts_that_contradict_the_whole_are_refused(columns, reason, tmp_path):
    with pytest.raises(ValueError, match=reason):
        read(tmp_path, table(**PLAIN, **columns))


@pytest.mark.parametrize(
    "columns",
    [
        {"p_value": (0.3, 0.4)},
        {"p_10": (-1, 0), "p_90": (1, 2)},
        {"p_05": (0.1, 0.2), "p_95": (0.3, 0.4)},
        {"mean_radius": (1, 2)},
        {"std_error": (1, 2)},
        {"0": (0.5, 0.5), "1": (0.5, 0.5)},
    ],
)
def test_other_columns_do_not_change_what_it_is(columns, tmp_path):
    found = read(tmp_path, table(**PLAIN, sd=(1, 2), **columns))
    assert found.predictive.mean.tolist() == [0, 1]
    assert found.predictive.variance.tolist() == [1, 4]


def test_one_output_may_have_a_name(tmp_path):
    found = read(tmp_path, table(mean_30=(1, 2), sd_30=(1, 1), target=(3, 4)))
    assert (found.targets - found.predictive.mean).flatten().tolist() == [2, 2]
    arrays = {"mean": np.zeros((2, 1)), "sd": np.ones((2, 1)), "y": [3, 4]}
    assert read(tmp_path, arrays, "net.npz").targets.tolist() == [[3], [4]]
