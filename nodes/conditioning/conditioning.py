"""Text to conditioning, and what can be done with it before sampling."""

from typing import Annotated, Any, Literal

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.graph.node import Multiline, Options, Output, Range, Services, Tooltip, node
from sigmagraph.engine.models.text.embeddings import FOLDER, MARK
from sigmagraph.engine.models.text.encode import nobody
from sigmagraph.nodes.support.types import Clip, Conditioning, Progressing, present

__all__ = ["NODES", "learned_words"]

TEXTS = ("text", "clip_l", "clip_g", "t5xxl")
Prompt = Annotated[str, Multiline(dynamic_prompts=True), Tooltip("(words:1.2) weighs words, relative to 1.")]
Percent = Annotated[float, Range(0.0, 1.0, step=0.001)]
Length = Annotated[int, Range(0, 10000, step=1), Tooltip("In tokens.")]
EmptyPadding = Annotated[Literal["none", "empty_prompt"], Options(["none", "empty_prompt"], named=True)]
NO_CLIP = "text encoders, which this checkpoint does not hold; add a TripleCLIPLoader"


def learned_words(*, services: Services | None = None, **given: Any) -> str:
    """The files that `embedding:name` may mean, by name and content, where a text says it or comes by a link."""
    texts = [given[name] for name in TEXTS if name in given]
    if services is None or not any(text is None or MARK in str(text) for text in texts):
        return ""
    names = services.files(FOLDER)
    return " ".join(f"{name!r}#{_content(services, name)}" for name in names)


def _content(services: Services, name: str) -> str:
    try:
        return services.content_hash(services.path(FOLDER, name))
    except EngineError:  # a link that leads nowhere, say: whoever names it is told when it is read
        return "unreadable"


@node(
    "CLIPTextEncode",
    category="conditioning",
    display_name="CLIP Text Encode (Prompt)",
    lane="device",
    fingerprint=learned_words,
    outputs=[Output("CONDITIONING", tooltip="The text as the model reads it.")],
)
def clip_text_encode(
    *, text: Prompt, clip: Annotated[Clip, Tooltip("The text encoders.")], going: Progressing = nobody
) -> Conditioning:
    """Encode one text with every encoder there is."""
    return present(clip, "clip", NO_CLIP).encode(text, going)


@node("CLIPTextEncodeSD3", category="advanced/conditioning", lane="device", fingerprint=learned_words)
def clip_text_encode_sd3(
    *,
    clip: Clip,
    clip_l: Prompt,
    clip_g: Prompt,
    t5xxl: Prompt,
    empty_padding: EmptyPadding,
    going: Progressing = nobody,
) -> Conditioning:
    """Encode a text of its own with each encoder; `none` leaves out the padding of empty ones."""
    encoders = present(clip, "clip", NO_CLIP)
    return encoders.encode_each(clip_l=clip_l, clip_g=clip_g, t5xxl=t5xxl, empty_padding=empty_padding, going=going)


@node("ConditioningZeroOut", category="advanced/conditioning", display_name="ConditioningZeroOut")
def conditioning_zero_out(*, conditioning: Conditioning) -> Conditioning:
    """Zeros of the same shapes: no text at all, which is not the same as an empty text."""
    return conditioning.zeroed()


@node("ConditioningConcat", category="conditioning", display_name="Conditioning (Concat)")
def conditioning_concat(*, conditioning_to: Conditioning, conditioning_from: Conditioning) -> Conditioning:
    """The tokens of both, one after the other; the pooled vector of the first."""
    return conditioning_to.followed_by(conditioning_from)


@node("ConditioningCombine", category="conditioning", display_name="Conditioning (Combine)")
def conditioning_combine(*, conditioning_1: Conditioning, conditioning_2: Conditioning) -> Conditioning:
    """Both side by side: the model is asked about each, and its answers are averaged."""
    return conditioning_1.beside(conditioning_2)


@node("ConditioningSetTimestepRange", category="advanced/conditioning")
def conditioning_set_timestep_range(
    *, conditioning: Conditioning, start: Percent = 0.0, end: Percent = 1.0
) -> Conditioning:
    """Lets a conditioning act for a part of the way only: 0 is pure noise, 1 the finished image."""
    return conditioning.within(start, end)


@node("ConditioningAverage", category="conditioning", display_name="ConditioningAverage")
def conditioning_average(
    *,
    conditioning_to: Conditioning,
    conditioning_from: Conditioning,
    conditioning_to_strength: Annotated[float, Range(0.0, 1.0, step=0.01), Tooltip("1 is the first alone.")] = 1.0,
) -> Conditioning:
    """A mean of two, token by token; the second is cut or filled with zeros to the first one's length."""
    return conditioning_to.mixed(conditioning_from, conditioning_to_strength)


@node("CLIPSetLastLayer", category="conditioning", display_name="CLIP Set Last Layer")
def clip_set_last_layer(
    *, clip: Clip, stop_at_clip_layer: Annotated[int, Range(-24, -1, step=1), Tooltip("-1 is the last layer.")] = -1
) -> Clip:
    """The same text encoders, read at an earlier layer."""
    return present(clip, "clip", NO_CLIP).with_last_layer(stop_at_clip_layer)


@node("T5TokenizerOptions", category="_for_testing/conditioning", experimental=True)
def t5_tokenizer_options(*, clip: Clip, min_padding: Length = 0, min_length: Length = 0) -> Clip:
    """How many fillers and tokens a text for T5 has at least; 0 and 0 is the bare text."""
    return present(clip, "clip", NO_CLIP).with_t5_padding(min_padding, min_length)


NODES = (
    clip_text_encode,
    clip_text_encode_sd3,
    conditioning_zero_out,
    conditioning_combine,
    conditioning_concat,
    conditioning_average,
    conditioning_set_timestep_range,
    clip_set_last_layer,
    t5_tokenizer_options,
)
