import pytest
import torch

from sigmagraph.engine.graph.comfy.comfy_class import from_class
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.nodes.support.borders import border
from sigmagraph.nodes.support.types import LatentValue

CROSS = border().translations


def test_a_latent_crosses_as_a_dict_and_comes_back_the_same() -> None:
    latent = LatentValue(torch.randn(2, 16, 4, 4), torch.ones(2, 32, 32), (3, 5))
    outside = CROSS["LATENT"].out(latent)
    assert sorted(outside) == ["batch_index", "noise_mask", "samples"]
    back = CROSS["LATENT"].back(outside)
    assert torch.equal(back.samples, latent.samples)
    assert torch.equal(back.noise_mask, latent.noise_mask)
    assert back.batch_index == (3, 5)


def test_a_mask_with_a_channel_loses_it_on_the_way_back() -> None:
    back = CROSS["LATENT"].back({"samples": torch.zeros(1, 16, 4, 4), "noise_mask": torch.ones(1, 1, 32, 32)})
    assert back.noise_mask.shape == (1, 32, 32)


def test_a_conditioning_crosses_as_a_list_with_its_pooled_vector() -> None:
    conditioning = Conditioning(torch.randn(1, 7, 8), torch.randn(1, 4))
    back = CROSS["CONDITIONING"].back(CROSS["CONDITIONING"].out(conditioning))
    assert torch.equal(back.context, conditioning.context)
    assert torch.equal(back.pooled, conditioning.pooled)


def test_entries_with_times_of_their_own_cross_and_come_back_the_same() -> None:
    first = Conditioning(torch.randn(1, 7, 8), torch.randn(1, 4)).within(0.25, 0.75)
    both = first.beside(Conditioning(torch.randn(1, 5, 8), torch.randn(1, 4)))
    outside = CROSS["CONDITIONING"].out(both)
    assert [extra.get("start_percent") for _, extra in outside] == [0.25, None]
    back = CROSS["CONDITIONING"].back(outside)
    for one, other in zip(back.entries, both.entries, strict=True):
        assert torch.equal(one.context, other.context)
        assert (one.start, one.end) == (other.start, other.end)


def test_what_our_conditioning_cannot_say_is_refused() -> None:
    extra = {"pooled_output": torch.zeros(1, 4), "control": object(), "gligen": None}
    with pytest.raises(ValueError, match="a ControlNet of a pack's own class object;"):
        CROSS["CONDITIONING"].back([[torch.zeros(1, 7, 8), extra]])


def test_regions_and_what_packs_add_cross_both_ways() -> None:
    mask = torch.rand(1, 8, 8)
    entries = [
        [
            torch.zeros(1, 7, 8),
            {"area": (4, 5, 1, 2), "strength": 0.5, "set_area_to_bounds": False, "note": "a pack's"},
        ],
        [
            torch.ones(1, 7, 8),
            {"mask": mask, "mask_strength": 0.3, "default": True, "start_percent": 0.5, "end_percent": 1.0},
        ],
        [torch.ones(1, 7, 8), {"area": ("percentage", 0.5, 0.25, 0.0, 0.1), "pooled_output": torch.ones(1, 4)}],
    ]
    again = CROSS["CONDITIONING"].out(CROSS["CONDITIONING"].back(entries))
    for (context, extra), (first, given) in zip(again, entries, strict=True):
        assert torch.equal(context, first)
        assert extra == given


def test_sigmas_cross_as_a_tensor() -> None:
    assert CROSS["SIGMAS"].back(CROSS["SIGMAS"].out((1.0, 0.5, 0.0))) == (1.0, 0.5, 0.0)


class Noisy:
    """Edits the latent it is given in place."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, tuple[str]]]:  # noqa: N802  # the convention's name
        return {"required": {"latent": ("LATENT",)}}

    def go(self, latent: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor]]:
        latent["samples"].mul_(2)
        return (latent,)


def test_an_edit_in_place_does_not_reach_the_value_on_the_edge() -> None:
    latent = LatentValue(torch.ones(1, 16, 2, 2))
    made = from_class(Noisy, "Noisy", border=border())
    assert made.reads is not None
    row = made.reads(made(latent=latent))
    assert torch.equal(row.values[0].samples, torch.full((1, 16, 2, 2), 2.0))
    assert torch.equal(latent.samples, torch.ones(1, 16, 2, 2))


def test_a_watching_border_names_the_input_that_was_edited() -> None:
    made = from_class(Noisy, "Noisy", border=border(watches=True))
    with pytest.raises(TypeError, match=r"changed its input 'latent' in place \(\['samples'\] its elements\)"):
        made(latent=LatentValue(torch.ones(1, 16, 2, 2)))


@pytest.mark.parametrize("shape", [(32, 32), (1, 32, 32), (1, 1, 32, 32)])
def test_a_mask_reaches_packs_with_a_channel_and_comes_back_from_any_shape(shape: tuple[int, ...]) -> None:
    """[B, 1, H, W] is what every node of ComfyUI gives, and what packs interpolate and pool."""
    latent = CROSS["LATENT"].back({"samples": torch.zeros(1, 16, 4, 4), "noise_mask": torch.ones(shape)})
    assert latent.noise_mask.shape == (1, 32, 32)
    assert CROSS["LATENT"].out(latent)["noise_mask"].shape == (1, 1, 32, 32)


def test_what_a_pack_puts_into_a_latent_travels_with_it_to_its_next_node() -> None:
    latent = CROSS["LATENT"].back({"samples": torch.zeros(1, 16, 4, 4), "state_info": {"raw_x": torch.ones(2)}})
    after = CROSS["LATENT"].out(latent.with_samples(latent.samples + 1))
    assert torch.equal(after["state_info"]["raw_x"], torch.ones(2))
    assert sorted(after) == ["samples", "state_info"]
