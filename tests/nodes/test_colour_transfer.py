from typing import Any

import pytest
import torch
from torch import Tensor

from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.colour_matching import METHODS, from_lab, to_lab

GENERATOR = torch.Generator().manual_seed(0)
# soft colours, so that nothing is cut off on the way
TARGET = 0.35 + 0.3 * torch.rand(3, 24, 32, 3, generator=GENERATOR) @ torch.tensor(
    [[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6]]
)
REFERENCE = 0.4 + 0.2 * torch.rand(2, 20, 20, 3, generator=GENERATOR)


def transferred(target: Tensor, reference: Tensor, method: str, kind: str = "per_frame", **more: Any) -> Tensor:
    stats = {"source_stats": kind, **({"target_index": more.pop("target_index")} if "target_index" in more else {})}
    found: Tensor = NODES["ColorTransfer"](
        image_target=target, image_ref=reference, method=method, source_stats=stats, **more
    )
    return found


def test_lab_has_the_known_values_of_known_colours_and_goes_back() -> None:
    known = {  # CIE L*a*b* of sRGB's corners under D65, as published in colour tables
        (1.0, 1.0, 1.0): (100.0, 0.0, 0.0),
        (0.0, 0.0, 0.0): (0.0, 0.0, 0.0),
        (1.0, 0.0, 0.0): (53.24, 80.09, 67.20),
        (0.0, 1.0, 0.0): (87.73, -86.18, 83.18),
        (0.0, 0.0, 1.0): (32.30, 79.19, -107.86),
    }
    for rgb, lab in known.items():
        torch.testing.assert_close(to_lab(torch.tensor(rgb)), torch.tensor(lab), atol=0.02, rtol=0)
    torch.testing.assert_close(from_lab(to_lab(TARGET)), TARGET, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_a_picture_of_the_wanted_colours_stays_and_strength_goes_part_of_the_way(method: str) -> None:
    torch.testing.assert_close(transferred(TARGET[:1], TARGET[:1], method), TARGET[:1], atol=5e-3, rtol=0)
    whole = transferred(TARGET, REFERENCE, method)
    half = transferred(TARGET, REFERENCE, method, strength=0.5)
    torch.testing.assert_close(half, (TARGET + whole) / 2)
    assert transferred(TARGET, REFERENCE, method, strength=0.0) is TARGET


def test_reinhard_gives_each_frame_the_mean_and_deviation_of_the_reference() -> None:
    wanted = to_lab(REFERENCE).reshape(-1, 3)
    for frame in transferred(TARGET, REFERENCE, "reinhard_lab"):
        found = to_lab(frame).reshape(-1, 3)
        torch.testing.assert_close(found.mean(0), wanted.mean(0), atol=0.02, rtol=0)
        torch.testing.assert_close(found.std(0), wanted.std(0), atol=0.02, rtol=0)


def test_monge_kantorovich_gives_the_covariance_too_by_a_symmetric_map() -> None:
    frame = TARGET[:1]
    wanted, found = to_lab(REFERENCE).reshape(-1, 3), to_lab(transferred(frame, REFERENCE, "mkl_lab")).reshape(-1, 3)
    torch.testing.assert_close(found.T.cov(correction=0), wanted.T.cov(correction=0), atol=0.05, rtol=0)
    before = to_lab(frame).reshape(-1, 3)
    change = torch.linalg.lstsq(before - before.mean(0), found - found.mean(0)).solution
    torch.testing.assert_close(change, change.T, atol=1e-3, rtol=0)
    assert bool((torch.linalg.eigvalsh(change) > 0).all())


def test_histogram_gives_every_channel_the_reference_s_quantiles_in_the_same_order() -> None:
    frame, wanted = transferred(TARGET[:1], REFERENCE[:1], "histogram")[0], REFERENCE[0]
    shares = torch.linspace(0.05, 0.95, 10)
    for at in range(3):
        quantiles = (torch.quantile(values[..., at].flatten(), shares) for values in (frame, wanted))
        torch.testing.assert_close(*quantiles, atol=6e-3, rtol=0)
        order = TARGET[0, ..., at].flatten().argsort()
        assert bool((frame[..., at].flatten()[order].diff() >= -1e-6).all())


def test_histogram_pairs_frames_with_references_and_the_last_serves_the_rest() -> None:
    found = transferred(TARGET, REFERENCE, "histogram")
    for at, other in ((0, 0), (1, 1), (2, 1)):
        alone = transferred(TARGET[at : at + 1], REFERENCE[other : other + 1], "histogram")
        assert torch.equal(found[at : at + 1], alone)


@pytest.mark.parametrize("method", METHODS)
def test_one_way_for_the_whole_batch_is_fitted_to_all_or_to_one_frame(method: str) -> None:
    pooled = TARGET.reshape(1, -1, 32, 3)
    uniform = transferred(TARGET, REFERENCE, method, "uniform")
    torch.testing.assert_close(
        uniform.reshape(1, -1, 32, 3), transferred(pooled, REFERENCE[:, :, :], method, "uniform")
    )
    by_last = transferred(TARGET, REFERENCE, method, "target_frame", target_index=9)
    alone = transferred(TARGET[2:], REFERENCE, method, "uniform")
    torch.testing.assert_close(by_last[2:], alone)
