"""Several images that share their first steps: a run is branched from its recording, without asking the model again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling.mask import fitted
from sigmagraph.engine.sampling.noise import NoiseSource, NoiseSpec, Streams
from sigmagraph.engine.sampling.record import Recording
from sigmagraph.engine.sampling.sampling import Sampling
from sigmagraph.engine.sampling.solver import Noise, Prediction


@dataclass(frozen=True)
class BranchingNoise:
    """Noise of a run whose images are branches of another's, `branches` of each.

    The first `shared` draws are the other's. `trunk` says which image of its batch each image of the other run is.
    """

    source: NoiseSource
    branches: int
    shared: int
    trunk: tuple[int, ...] | None

    def initial(self, like: Tensor, batch_index: Sequence[int] | None = None) -> Tensor:
        return self._spread(self.source.initial(like[:: self.branches], self.trunk))

    def mask_noise(self, like: Tensor) -> Tensor:
        return self._spread(self.source.mask_noise(like[:: self.branches]))

    def streams(self, like: Tensor, spec: NoiseSpec) -> Streams:
        before = self.source.streams(like[:: self.branches], replace(spec, batch_index=self.trunk))
        after = self.source.streams(like, spec)
        return Streams(self._parting(before.draw, after.draw), after.churn, after.brownian)

    def _parting(self, before: Callable[[], Tensor], after: Callable[[], Tensor]) -> Callable[[], Tensor]:
        drawn = 0

        def draw() -> Tensor:
            nonlocal drawn
            drawn += 1
            own = after()  # both go on, so that a branch's draws are numbered as the trunk's
            return self._spread(before()) if drawn <= self.shared else own

        return draw

    def _spread(self, noise: Tensor) -> Tensor:
        return noise.repeat_interleave(self.branches, 0)


def branched(sampling: Sampling, recording: Recording, branches: int, evaluations: int) -> tuple[Sampling, Recording]:
    """`branches` images of each image of a run, equal up to its first `evaluations`, parted by noise from there on.

    Returns the run and its recording, which holds what the images share: `run.run(recording)` asks the model for the
    rest alone. Images of one trunk lie side by side. With noise by counter the first of them is the trunk itself.
    """
    known, rule = len(recording.predictions), sampling.rule
    if type(evaluations) is not int or not 0 <= evaluations <= known:
        raise BadValue("evaluations", evaluations, f"a number from 0 to the {known} that the recording holds")
    if type(branches) is not int or branches < 1:
        raise BadValue("branches", branches, "a whole number from 1")
    if rule.noise is not Noise.SEQUENCE or rule.splits_batch:
        allowed = "a sampler that draws noise in sequence, for a whole batch, such as flow_grpo or precise"
        raise BadValue("sampling.solver", str(rule), allowed)
    images = sampling.latent.shape[0]
    trunk = tuple(range(images)) if sampling.batch_index is None else tuple(sampling.batch_index)
    stride = max(trunk) + 1
    kept = recording.predictions[:evaluations]
    index = None if sampling.batch_index is None else trunk
    noise = BranchingNoise(sampling.noise, branches, _draws(sampling, kept), index)
    mask = sampling.mask
    if mask is not None and mask.ndim > 2 and mask.shape[0] > 1:
        whole = fitted(mask, sampling.latent)
        mask = whole.reshape(images, -1, *whole.shape[-2:])[:, 0].repeat_interleave(branches, 0)
    run = replace(
        sampling,
        latent=sampling.latent.repeat_interleave(branches, 0),
        noise=noise,
        mask=mask,
        batch_index=[one + branch * stride for one in trunk for branch in range(branches)],
    )
    return run, Recording([_spread(one, branches) for one in kept])


def _draws(sampling: Sampling, predictions: Sequence[Prediction]) -> int:
    """How often a run draws noise up to the state after these predictions."""
    counting = _Counting(sampling.noise)
    with torch.inference_mode():
        run = replace(sampling, noise=counting)._prepared().run
        for one in predictions:
            run.answer(one)
    run.close()
    return counting.draws


class _Counting:
    """A noise source that counts what is drawn in sequence."""

    def __init__(self, source: NoiseSource) -> None:
        self._source, self.draws = source, 0

    def initial(self, like: Tensor, batch_index: Sequence[int] | None = None) -> Tensor:
        return self._source.initial(like, batch_index)

    def mask_noise(self, like: Tensor) -> Tensor:
        return self._source.mask_noise(like)

    def streams(self, like: Tensor, spec: NoiseSpec) -> Streams:
        opened = self._source.streams(like, spec)

        def draw() -> Tensor:
            self.draws += 1
            return opened.draw()

        return replace(opened, draw=draw)


def _spread(prediction: Prediction, branches: int) -> Prediction:
    """One prediction's images, each repeated; what guidance remembers too."""
    uncond, memory = (
        None if one is None else one.repeat_interleave(branches, 0) for one in (prediction.uncond, prediction.memory)
    )
    return Prediction(prediction.denoised.repeat_interleave(branches, 0), uncond, memory)
