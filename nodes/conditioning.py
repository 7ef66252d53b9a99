"""Text to conditioning, and what can be done with it before sampling."""

from typing import Annotated, Literal

from engine.graph.node import Multiline, Options, Output, Tooltip, node
from nodes.types import Clip, Conditioning, present

__all__ = ["NODES"]

Prompt = Annotated[str, Multiline(dynamic_prompts=True), Tooltip("(words:1.2) weighs words, relative to 1.")]
EmptyPadding = Annotated[Literal["none", "empty_prompt"], Options(["none", "empty_prompt"], named=True)]
NO_CLIP = "text encoders, which this checkpoint does not hold; add a TripleCLIPLoader"


@node(
    "CLIPTextEncode",
    category="conditioning",
    display_name="CLIP Text Encode (Prompt)",
    lane="device",
    outputs=[Output("CONDITIONING", tooltip="The text as the model reads it.")],
)
def clip_text_encode(*, text: Prompt, clip: Annotated[Clip, Tooltip("The text encoders.")]) -> Conditioning:
    """Encode one text with every encoder there is."""
    return present(clip, "clip", NO_CLIP).encode(text)


@node("CLIPTextEncodeSD3", category="advanced/conditioning", lane="device")
def clip_text_encode_sd3(
    *, clip: Clip, clip_l: Prompt, clip_g: Prompt, t5xxl: Prompt, empty_padding: EmptyPadding
) -> Conditioning:
    """Encode a text of its own with each encoder; `none` leaves out the padding of empty ones."""
    encoders = present(clip, "clip", NO_CLIP)
    return encoders.encode_each(clip_l=clip_l, clip_g=clip_g, t5xxl=t5xxl, empty_padding=empty_padding)


@node("ConditioningZeroOut", category="advanced/conditioning", display_name="ConditioningZeroOut")
def conditioning_zero_out(*, conditioning: Conditioning) -> Conditioning:
    """Zeros of the same shapes: no text at all, which is not the same as an empty text."""
    return conditioning.zeroed()


NODES = (clip_text_encode, clip_text_encode_sd3, conditioning_zero_out)
