"""Where our nodes knowingly differ from ComfyUI 0.3.64's, and why: the list behind tests and docs."""

from collections.abc import Mapping


def numbered(node: str, *numbers: int) -> frozenset[str]:
    """Names of recorded cases."""
    return frozenset(f"{node}/case{number}" for number in numbers)


# recorded cases whose result differs on purpose, with the reason
RESULTS: Mapping[str, tuple[frozenset[str], str]] = {
    "EasyCache": (
        numbered("EasyCache", 0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 14, 16, 17, 19, 20),
        "each side of the guidance is foretold by itself, and the state stays as it is; ComfyUI adds the differences "
        "of all sides to each, so fails for batches, and changes the network's input in place",
    ),
    "FeatherMask": (
        numbered("FeatherMask", *range(1, 8), *range(9, 15)),
        "`right` and `bottom` fade from the far edge inwards; ComfyUI starts at the near edge's first line and leaves "
        "the last one out",
    ),
    "JoinImageWithAlpha": (
        numbered("JoinImageWithAlpha", 8),
        "a mask without a batch axis is one mask; ComfyUI fails",
    ),
    "LoadImageMask": (
        numbered("LoadImageMask", 29, 30, 31),
        "16-bit grey is scaled to 0..1; with today's Pillow ComfyUI cuts everything above 255 of 65535 off",
    ),
    "LatentApplyOperation": (
        numbered("LatentApplyOperation", 2, 10, 18, 26),
        "LatentOperationTonemapReinhard gives zeros at multiplier 0, and takes a single place for one without "
        "deviation; ComfyUI gives NaN, so a black picture",
    ),
    "RebatchLatents": (
        numbered("RebatchLatents", 24, 25, 26, 27),
        "masks are resized to one another; ComfyUI does not use the ones it resized, and fails where a batch needs "
        "them alike",
    ),
    "RenormCFG": (
        numbered("RenormCFG", 4, 11),
        "the norm of each image of a batch is bounded by itself; ComfyUI fails for batches",
    ),
    "RegexExtract": (
        numbered("RegexExtract", 328, 329),
        "a group that takes no part in a match is an empty string; ComfyUI fails, or gives nothing at all",
    ),
    "ImageBatch": (
        numbered("ImageBatch", 3, 4),
        "pictures with and without transparency share a batch, opaque where they had none; ComfyUI fails",
    ),
    "ImageBlend": (
        numbered("ImageBlend", *range(24, 30)),
        "a first picture with transparency takes a second one without; ComfyUI pads to five channels and fails",
    ),
    "ImageCompositeMasked": (
        numbered("ImageCompositeMasked", *range(32, 40)),
        "a destination with transparency takes a source without; ComfyUI pads to five channels and fails",
    ),
}

# inputs, outputs or flags of a declaration that differ on purpose, with the reason
DECLARATIONS: Mapping[tuple[str, str], str] = {
    ("CLIPLoader", "type"): "families of newer versions too; all but sd3 are refused when they are loaded",
    ("DualCLIPLoader", "type"): "families of newer versions too; all but sd3 are refused when they are loaded",
    ("ImageScaleToTotalPixels", "resolution_steps"): "an input of newer versions",
    ("ModelSamplingAuraFlow", "sampling"): "an input of newer versions; only 'flow' is supported",
    (
        "PerturbedAttentionGuidance",
        "layers",
    ): "ours: a transformer's blocks; without any SD3's picture stays as it is, "
    "as in ComfyUI, whose node acts in a U-Net's middle block",
    ("PerturbedAttentionGuidance", "start_percent"): "ours",
    ("PerturbedAttentionGuidance", "end_percent"): "ours",
    ("LoadImageOutput", "image"): "its pictures are listed as those of other folders; ComfyUI's page asks for them",
}

# nodes of versions after 0.3.64, whose declarations are known from documentation and real files alone
NEWER: Mapping[str, str] = {
    "ColorTransfer": "Lab is CIE L*a*b* under D65; distributions are matched exactly, not in steps",
    "ConditioningLoader": "",
    "SaveConditioning": "areas, hooks and ControlNets are not saved",
    "CreateBoundingBoxes": "the preview's look is ours",
    "DrawBBoxes": "the look is ours; any label is written, not COCO's alone",
    "ImageCropToMask": "a mask is inverted whose edges are in it, by more than half, and whose middle quarter is not; "
    "it grows by squares; resampled bilinearly, by area when shrunk",
    "ModelAttentionBackend": "PyTorch's attention always, as ComfyUI where no other is there",
    "Painter": "",
    "TemporalScoreRescaling": "by the paper",
    "CurveEditor": "",
    "GLSLShader": "computed without OpenGL: no structures, matrices, arrays, `switch`, macros; curves have 256 places",
    "ImageHistogram": "",
    "EndLoop": "all turns are laid out when their number is known: at most 20,000 nodes of all turns together, and "
    "four million characters of their ids, which some sixteen loops inside each other reach",
    "LoopIteration": "made by EndLoop",
    "LoopProgress": "made by EndLoop",
    "LoopResult": "made by EndLoop; its values are a list that grows",
    "LoopRun": "ours, made by EndLoop: knows how many turns there are",
    "StartLoop": "turns that are not cached run again only where something in or before the loop changed",
    "BatchImagesNode": "",
    "BatchLatentsNode": "",
    "BatchMasksNode": "",
    "CFGOverride": "",
    "ColorToRGBInt": "",
    "ComfyAndNode": "",
    "ComfyMathExpression": "the formula is parsed, never run as Python; bounds on length, steps and whole numbers",
    "ComfyNotNode": "",
    "ComfyNumberConvert": "",
    "ComfyOrNode": "",
    "ComfySwitchNode": "",
    "ConvertArrayToString": "",
    "ConvertDictionaryToString": "",
    "CreateList": "",
    "CustomCombo": "",
    "DualModelGuider": "",
    "GetItemFromList": "",
    "ImageCompare": "",
    "ImageCropV2": "",
    "JsonExtractString": "",
    "LatentCutToBatch": "",
    "NAGuidance": "by the paper: both texts share the image's tokens in one forward; its inputs are not compared",
    "PrimitiveBoundingBox": "",
    "ResizeImageMaskNode": "",
    "ResizeImagesByLongerEdge": "",
    "ResolutionSelector": "",
    "SaveImageAdvanced": "PNG of 8 or 16 bits; no EXR, no AVIF",
    "SaveText": "",
    "SeedNode": "",
    "SplitImageToTileList": "",
    "StringFormat": "fields are names: attributes and items of values are not reached",
}

# classes that public files ask for often, suit this backend by their kind, and are not here
MISSING: Mapping[str, str] = {
    "BlockSparseAttention": "its selection of blocks is described in words alone; below 12,288 tokens, a picture of "
    "1770 x 1770, it does nothing",
    "ImageCompositor": "what its editor stores is not documented",
    "LatentUpscaleModelLoader": "models of video",
    "LoadBackgroundRemovalModel": "background models are left out",
    "ModelNoiseScale": "for HiDream-O1, whose family is not here",
    "RemoveBackground": "background models are left out",
    "SaveSVGNode": "nothing here makes an SVG; partner nodes do",
    "ScaleROPE": "changes rotary positions, which SD3's transformer does not have",
}

HEAD = """# Where nodes differ from ComfyUI's

Nodes that exist in ComfyUI 0.3.64 have its names, inputs, order, types, defaults, ranges and results. What differs on
purpose stands here. The page is written by `python -m tests.nodes.deviations > docs/comfyui.md`; tests hold every other
declaration and every other recorded result to ComfyUI's.
"""


def page() -> str:
    """docs/comfyui.md."""
    results = [f"| {node} | {reason} |" for node, (_, reason) in sorted(RESULTS.items())]
    declared = [f"| {node} | {part} | {reason} |" for (node, part), reason in sorted(DECLARATIONS.items())]
    newer = [f"| {node} | {difference or '-'} |" for node, difference in sorted(NEWER.items())]
    missing = [f"| {node} | {reason} |" for node, reason in sorted(MISSING.items())]
    sections = [
        "## Results\n\n| node | ours |\n| --- | --- |\n" + "\n".join(results),
        "## Declarations\n\n| node | part | ours |\n| --- | --- | --- |\n" + "\n".join(declared),
        "## Nodes of newer versions\n\nKnown from documentation and real files, not from a declaration.\n\n"
        "| node | what differs |\n| --- | --- |\n" + "\n".join(newer),
        "## Nodes that are not here\n\nOf 144 core classes that suit this backend, by the files that ask for them, "
        "these are missing. Nodes of other model families, video, audio and 3D are not among the 144.\n\n"
        "| node | why |\n| --- | --- |\n" + "\n".join(missing),
        "Sampler and schedule lists hold more names than ComfyUI's. Tooltips and descriptions are our own.",
    ]
    return HEAD + "\n" + "\n\n".join(sections) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(page())
