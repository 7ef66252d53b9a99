"""How a model's network is run, where nodes may say so: compiled, and by which attention."""

import logging
from typing import Annotated

from sigmagraph.engine.graph.node import Options, node
from sigmagraph.nodes.support.types import Model

__all__ = ["NODES"]

logger = logging.getLogger(__name__)
TORCH, KITCHEN = "pytorch attention", "comfy kitchen attention"


@node("TorchCompileModel", category="_for_testing", experimental=True)
def torch_compile_model(*, model: Model, backend: Annotated[str, Options(["inductor", "cudagraphs"])]) -> Model:
    """Run the model's blocks compiled; where that fails, they run as they are, and the log says so."""
    if backend != "inductor":
        logger.info("TorchCompileModel: %s is not used; blocks are compiled, and captured on CUDA anyway", backend)
    return model.compiled()


@node("ModelAttentionBackend", category="model_patches", display_name="Model Attention Backend")
def model_attention_backend(
    *, model: Model, attention: Annotated[str, Options([TORCH, KITCHEN], named=True)] = TORCH
) -> Model:
    """The model with PyTorch's attention: in 8 bits there is none here, and then PyTorch's takes its place."""
    if attention != TORCH:
        logger.warning("ModelAttentionBackend: there is no %r here; PyTorch's attention is used", attention)
    return model


NODES = (torch_compile_model, model_attention_backend)
