"""Arguments of the scalarizers that compare windows, and of FAMO."""

import inspect

import pytest

import kdopt


def test_bad_arguments_say_what_to_do():
    with pytest.raises(ValueError, match="window must be a number of steps"):
        kdopt.dwa(window=0)
    # Unwrapped: the type checker of the tests would see these two first.
    with pytest.raises(ValueError, match="variant must be one of"):
        inspect.unwrap(kdopt.softadapt)(variant="best")
    with pytest.raises(ValueError, match="num_losses must be an int"):
        kdopt.softadapt(num_losses=0)
    with pytest.raises(ValueError, match="signal must be one of"):
        inspect.unwrap(kdopt.famo)(signal="literal")
