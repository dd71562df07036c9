"""The toy problem: its losses, its Pareto set and what is written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples import toy

pytestmark = pytest.mark.usefixtures("standard")


def test_pareto_set_is_stationary():
    """On the segment some convex combination of the gradients vanishes."""
    for x1 in (-5.0, 0.0, 5.0):
        point = jnp.array([x1, toy.PARETO_X2])
        first, second = jax.jacobian(toy.losses)(point)
        weight = -second[0] / (first[0] - second[0])
        assert 0 < weight < 1
        np.testing.assert_allclose(weight * first + (1 - weight) * second, 0, atol=2e-3)


def test_distance_to_the_pareto_set():
    points = np.array([[0.0, toy.PARETO_X2], [10.1, toy.PARETO_X2 + 4]])
    np.testing.assert_allclose(toy.distance_to_pareto(points), [0, 5], atol=1e-12)


def test_figure_and_table_are_written(tmp_path, capsys):
    settings = toy.Toy(
        directory=tmp_path, steps=100, methods=("min_norm", "random scalars")
    )
    runs = toy.main(settings)
    assert runs["min_norm"].shape == (5, 2, 2)
    assert np.all(runs["min_norm"][:, 0] == toy.STARTS.astype(np.float32))
    assert (tmp_path / "paths.png").stat().st_size > 10_000
    assert "min_norm" in (tmp_path / "table.txt").read_text()
    assert "Pareto" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [({"methods": ("sgd",)}, "choose linear, min_norm"), ({"steps": 150}, "of 100")],
)
def test_wrong_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        toy.main(toy.Toy(**change))
