"""The demo's tokenizers and text encoders: small ones of the three shapes that SD3 uses.

The encoders are trained together with the transformer. Ids, padding and assembly are those of SD3: CLIP-L and bigG
hidden states of the last layer but one side by side, padded to the T5 width, then the T5 tokens.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

CHUNK = 20
"""Tokens in one CLIP chunk and fewest T5 tokens: the longest caption of the data has 18."""
WIDTH_L, WIDTH_G, WIDTH_T5 = 64, 128, 256
MERGES = 320
WORD = r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def clip_tokenizer(corpus: Sequence[str]) -> Tokenizer:
    """Byte-level BPE laid out as CLIP's: bytes, bytes at word ends, merges, start, end."""
    draft = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    _prepare(draft)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=10_000, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    draft.train_from_iterator(corpus, trainer)
    merges = [tuple(merge) for merge in json.loads(draft.to_str())["model"]["merges"]][:MERGES]
    names = [*alphabet, *(byte + "</w>" for byte in alphabet)]
    names += [name for name in dict.fromkeys(a + b for a, b in merges) if name not in set(names)]
    names += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: i for i, name in enumerate(names)}
    final = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>"))
    _prepare(final)
    final.decoder = decoders.BPEDecoder(suffix="</w>")
    return final


def _prepare(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORD), "removed", invert=True), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )


def t5_tokenizer(corpus: Sequence[str]) -> Tokenizer:
    """Unigram with word marks: pad 0, end 1, unknown 2, as T5's. Words of the corpus whole, all else by letters."""
    counts = Counter(re.findall(r"\w+|[^\w\s]", " ".join(corpus).lower()))
    total = sum(counts.values())
    words = [(f"\u2581{word}", math.log(count / total)) for word, count in sorted(counts.items())]
    letters = [(letter, -15.0) for letter in "\u2581abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"()-"]
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    tokenizer = Tokenizer(models.Unigram([*specials, *words, *letters], unk_id=2))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


@dataclass(frozen=True)
class Tokens:
    """Ids of a batch of captions: `clip_l` and `clip_g` [B, 20], `t5` [B, 20]."""

    clip_l: Tensor
    clip_g: Tensor
    t5: Tensor


@dataclass(frozen=True)
class Tokenizers:
    """The two vocabularies (both CLIPs share one)."""

    clip: Tokenizer
    t5: Tokenizer

    def __call__(self, captions: Sequence[str]) -> Tokens:
        """Captions -> ids, cut to one chunk."""
        end = self.clip.get_vocab_size() - 1
        clip = [self.clip.encode(caption, add_special_tokens=False).ids[: CHUNK - 2] for caption in captions]
        t5 = [[*self.t5.encode(caption, add_special_tokens=False).ids[: CHUNK - 1], 1] for caption in captions]
        framed = [[end - 1, *ids, end] for ids in clip]
        return Tokens(_padded(framed, end), _padded(framed, 0), _padded(t5, 0))


def _padded(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    return torch.tensor([[*row, *[pad] * (CHUNK - len(row))] for row in rows])


class TextEncoders(nn.Module):
    """The three encoders; parameters are named as in transformers, hence as in the weight files."""

    def __init__(self, clip_vocabulary: int, t5_vocabulary: int) -> None:
        super().__init__()
        self.clip_l = CLIPTextModelWithProjection(_clip_config(WIDTH_L, 1, "quick_gelu", clip_vocabulary))
        self.clip_g = CLIPTextModelWithProjection(_clip_config(WIDTH_G, 2, "gelu", clip_vocabulary))
        self.t5xxl = T5EncoderModel(_t5_config(t5_vocabulary))
        for clip in (self.clip_l, self.clip_g):
            # Hidden states reach the transformer without a final norm: start them at a size it can see.
            nn.init.normal_(clip.text_model.embeddings.token_embedding.weight, std=0.5)
            nn.init.normal_(clip.text_model.embeddings.position_embedding.weight, std=0.1)
        with torch.no_grad():  # published CLIP-L files carry no projection: it is the identity
            self.clip_l.text_projection.weight.copy_(torch.eye(WIDTH_L)).requires_grad_(False)

    def forward(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Context [B, 40, 256] and pooled [B, 192]."""
        of_l = self.clip_l(tokens.clip_l, output_hidden_states=True)
        of_g = self.clip_g(tokens.clip_g, output_hidden_states=True)
        clips = torch.cat([of_l.hidden_states[-2], of_g.hidden_states[-2]], dim=-1)
        clips = F.pad(clips, (0, WIDTH_T5 - clips.shape[-1]))
        context = torch.cat([clips, self.t5xxl(tokens.t5).last_hidden_state.to(clips.dtype)], dim=1)
        return context, torch.cat([of_l.text_embeds, of_g.text_embeds], dim=-1)


def _clip_config(width: int, heads: int, activation: str, vocabulary: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=3,
        num_attention_heads=heads,
        max_position_embeddings=CHUNK,
        hidden_act=activation,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
    )


def _t5_config(vocabulary: int) -> T5Config:
    return T5Config(
        vocab_size=vocabulary,
        d_model=WIDTH_T5,
        d_kv=64,
        d_ff=512,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        use_cache=False,
    )


def file_names(encoders: TextEncoders) -> dict[str, Tensor]:
    """State under the names of the published all-in-one files: `text_encoders.clip_l.transformer. ...`."""
    state: dict[str, Tensor] = {}
    for name, weight in encoders.state_dict().items():
        part, _, rest = name.partition(".")
        if part == "clip_l" and rest.startswith("text_projection"):
            continue
        rest = re.sub(r"^encoder\.embed_tokens\.", "shared.", rest) if part == "t5xxl" else rest
        state[f"text_encoders.{part}.transformer.{rest}"] = weight
    return state
