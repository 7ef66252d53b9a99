"""Where official files of the SD3 family are on the model hub, and where each goes below `models/`.

Standard library only: the command line fetches by it, the server tells its page by it.
"""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

__all__ = ["HUB", "SETS", "Download", "Source", "sets_for", "source_of"]

HUB = "https://huggingface.co"
LARGE = "stabilityai/stable-diffusion-3.5-large"
CONTROLNETS = "Comfy-Org/stable-diffusion-3.5-controlnets_ComfyUI_repackaged"  # what ComfyUI's own templates name
FP8 = "Comfy-Org/stable-diffusion-3.5-fp8"


class Source(NamedTuple):
    """One file on the hub, and where it goes below models/."""

    repository: str
    file: str
    target: str

    @property
    def name(self) -> str:
        """The file's name in its folder, as loaders list it."""
        return PurePosixPath(self.target).name

    @property
    def folder(self) -> str:
        """The model folder."""
        return self.target.partition("/")[0]

    @property
    def url(self) -> str:
        """Where a browser gets it."""
        return f"{HUB}/{self.repository}/resolve/main/{self.file}"


class Download(NamedTuple):
    """Files that are fetched together."""

    summary: str
    sources: tuple[Source, ...]


TOKENIZERS = (
    Source("openai/clip-vit-large-patch14", "tokenizer.json", "tokenizers/clip.tokenizer.json"),
    Source("google-t5/t5-small", "tokenizer.json", "tokenizers/t5xxl.tokenizer.json"),  # one vocabulary for all T5
)


def _encoders(t5: str) -> tuple[Source, ...]:
    names = ("clip_l.safetensors", "clip_g.safetensors", t5)
    return tuple(Source(LARGE, f"text_encoders/{name}", f"text_encoders/{name}") for name in names)


def _model(repository: str, file: str) -> tuple[Source, ...]:
    return (Source(repository, file, f"checkpoints/{file}"), *TOKENIZERS)


def _controlnet(kind: str) -> tuple[Source, ...]:
    name = f"sd3.5_large_controlnet_{kind}.safetensors"
    return (Source(CONTROLNETS, f"split_files/controlnet/{name}", f"controlnet/{name}"),)


def _gguf(repository: str, file: str, folder: str) -> tuple[Source, ...]:
    return (Source(f"city96/{repository}-gguf", file, f"{folder}/{file}"),)


SETS: dict[str, Download] = {
    "tokenizers": Download("the vocabularies of CLIP and T5 (3 MB, no licence to accept)", TOKENIZERS),
    "text-encoders": Download("CLIP-L, bigG and T5-XXL in fp16 (11.4 GB)", _encoders("t5xxl_fp16.safetensors")),
    "text-encoders-fp8": Download("the same with T5-XXL in fp8 (6.5 GB)", _encoders("t5xxl_fp8_e4m3fn.safetensors")),
    "sd3.5-large": Download("SD3.5 Large with its VAE (16.5 GB)", _model(LARGE, "sd3.5_large.safetensors")),
    "sd3.5-large-turbo": Download(
        "SD3.5 Large Turbo with its VAE (16.5 GB)", _model(f"{LARGE}-turbo", "sd3.5_large_turbo.safetensors")
    ),
    "sd3.5-medium": Download(
        "SD3.5 Medium with its VAE (5.1 GB)",
        _model("stabilityai/stable-diffusion-3.5-medium", "sd3.5_medium.safetensors"),
    ),
    "sd3.5-large-fp8": Download(
        "SD3.5 Large in scaled fp8, with encoders and VAE (14.9 GB)", _model(FP8, "sd3.5_large_fp8_scaled.safetensors")
    ),
    "sd3.5-large-gguf": Download(
        "SD3.5 Large's transformer in GGUF Q4_0 (4.8 GB)",
        _gguf("stable-diffusion-3.5-large", "sd3.5_large-Q4_0.gguf", "diffusion_models"),
    ),
    "sd3.5-large-turbo-gguf": Download(
        "the same of SD3.5 Large Turbo (4.8 GB)",
        _gguf("stable-diffusion-3.5-large-turbo", "sd3.5_large_turbo-Q4_0.gguf", "diffusion_models"),
    ),
    "sd3.5-medium-gguf": Download(
        "SD3.5 Medium's transformer in GGUF Q8_0 (2.9 GB)",
        _gguf("stable-diffusion-3.5-medium", "sd3.5_medium-Q8_0.gguf", "diffusion_models"),
    ),
    "t5xxl-gguf": Download(
        "T5-XXL in GGUF Q8_0 (5.1 GB)", _gguf("t5-v1_1-xxl-encoder", "t5-v1_1-xxl-encoder-Q8_0.gguf", "text_encoders")
    ),
    **{
        f"sd3.5-large-{kind}": Download(f"the {kind} ControlNet of SD3.5 Large (8.7 GB)", _controlnet(kind))
        for kind in ("blur", "canny", "depth")
    },
}


def source_of(name: str) -> Source | None:
    """The official file of this name, if it is one that loaders list."""
    return BY_NAME.get(name)


def sets_for(names: Iterable[str]) -> list[str]:
    """The fewest sets that bring these files, as far as any brings them: what brings most of them first."""
    left, found = set(names), list[str]()
    while left:
        brought = {one: {source.name for source in download.sources} & left for one, download in SETS.items()}
        best = max(SETS, key=lambda one: len(brought[one]))
        if not brought[best]:
            break
        found.append(best)
        left -= brought[best]
    return found


BY_NAME = {
    source.name: source for download in SETS.values() for source in download.sources if source.folder != "tokenizers"
}
