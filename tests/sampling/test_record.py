"""Recordings and trajectories as files."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from sigmagraph.engine.errors import BadValue, CorruptFile, MissingFile
from sigmagraph.engine.sampling import SOLVERS, ComfyNoise, Prediction, Recording, Sampling, Trajectory, sd3
from tests.sampling.closed_form import bumps

SIGMAS = [1.0, 0.7, 0.4, 0.1, 0.0]


def run(recording: Recording | None = None, seed: int = 4, **rest: object) -> torch.Tensor:
    latent = torch.zeros(2, 1, 3, 4)
    return Sampling(bumps, latent, SIGMAS, sd3(), "dpmpp_2m_cfg_pp", noise=ComfyNoise(seed)).run(recording, **rest)  # type: ignore[arg-type]


def test_a_recording_saved_and_loaded_resumes_the_run(tmp_path: Path) -> None:
    whole = Recording()
    expected = run(whole)
    Recording(whole.predictions[:2], whole.about).save(tmp_path / "cut.safetensors")
    loaded = Recording.load(tmp_path / "cut.safetensors")
    assert len(loaded.predictions) == 2
    assert torch.equal(run(loaded), expected)
    with safe_open(tmp_path / "cut.safetensors", "pt") as file:  # an independent reader agrees on the format
        assert torch.equal(file.get_tensor("000001/uncond"), whole.predictions[1].uncond)


def test_a_recording_of_another_run_is_refused() -> None:
    recording = Recording()
    run(recording)
    recording.replayed = 0
    with pytest.raises(BadValue, match="the recording of this run"):
        run(recording, seed=5)


def test_the_order_in_which_options_are_given_is_no_part_of_a_recording() -> None:
    def resumed(recording: Recording, **options: object) -> torch.Tensor:
        return Sampling(
            bumps, torch.zeros(1, 1, 3, 4), SIGMAS, sd3(), "dpmpp_sde", noise=ComfyNoise(4), options=options
        ).run(recording)

    whole = Recording()
    expected = resumed(whole, eta=0.5, s_noise=0.9, r=0.4)
    assert "{'eta': 0.5, 's_noise': 0.9, 'r': 0.4}" in whole.about  # as declared: what was kept before goes on
    assert torch.equal(resumed(Recording(whole.predictions[:3], whole.about), r=0.4, s_noise=0.9, eta=0.5), expected)
    with pytest.raises(BadValue, match="the recording of this run"):
        resumed(Recording(whole.predictions[:3], whole.about), r=0.4, s_noise=0.9, eta=0.6)


def test_a_trajectory_holds_every_level_state_and_estimate(tmp_path: Path) -> None:
    trajectory = Trajectory()
    final = run(on_tick=trajectory.add)
    trajectory.save(tmp_path / "way.safetensors")
    saved = load_file(tmp_path / "way.safetensors")
    assert saved["sigma"].tolist() == SIGMAS[:-1]
    assert saved["x"].shape == saved["denoised"].shape == (4, 2, 1, 3, 4)
    assert torch.equal(saved["x"][-1], final)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_trajectory_of_any_sampler_follows_its_evaluations_to_its_result(name: str, tmp_path: Path) -> None:
    trajectory, asked = Trajectory(), list[float]()

    def denoiser(x: torch.Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        asked.append(sigma)
        return bumps(x, sigma)

    final = Sampling(denoiser, torch.zeros(1, 1, 3, 4), SIGMAS, sd3(), name, noise=ComfyNoise(2)).run(
        on_tick=trajectory.add
    )
    trajectory.save(tmp_path / "way.safetensors")
    saved = load_file(tmp_path / "way.safetensors")
    assert saved["sigma"].tolist() == asked
    assert torch.equal(saved["x"][-1], final)


def test_a_trajectory_of_growing_states_is_refused(tmp_path: Path) -> None:
    trajectory = Trajectory()
    run(on_tick=trajectory.add)
    trajectory.x.append(torch.zeros(2, 1, 6, 8))
    with pytest.raises(BadValue, match="states of 2 sizes"):
        trajectory.save(tmp_path / "way.safetensors")


def test_files_that_are_no_recordings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        Recording.load(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    for content in (b"", b"\x08\x00\x00\x00\x00\x00\x00\x00notjson!", b"\x02\x00\x00\x00\x00\x00\x00\x00{}"):
        broken.write_bytes(content)
        with pytest.raises(CorruptFile):
            Recording.load(broken)
