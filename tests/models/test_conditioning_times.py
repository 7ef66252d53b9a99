"""When an entry of a conditioning acts."""

import torch

from sigmagraph.engine.models import Conditioning
from sigmagraph.engine.sampling import find_schedule, sd3
from sigmagraph.engine.sampling.precision import float32


def test_a_time_that_ends_on_a_level_of_the_run_counts_it_whatever_bits_single_precision_lacks() -> None:
    levels, nearly = sd3().levels, 0
    for steps in (5, 8, 10, 20, 28):
        for place, sigma in enumerate(find_schedule("simple")(levels, steps)[:-1]):
            exact = levels.percent_to_sigma(place / steps)  # `simple` is even in the time before its shift
            if float32(exact) == sigma:
                ends = Conditioning(torch.zeros(1, 1, 4), torch.zeros(1, 4), end=place / steps)
                begins = Conditioning(torch.zeros(1, 1, 4), torch.zeros(1, 4), start=place / steps)
                assert ends.acts(sigma, levels.percent_to_sigma)
                assert begins.acts(sigma, levels.percent_to_sigma)
                nearly += exact != sigma
    assert nearly > 10  # these came out wrong at one end in double precision
