"""The example of docs/reinforcement.md: training by a reward raises that reward on prompts it never saw."""

from pathlib import Path

import pytest

from models.demo import reinforce
from models.demo.export import CHECKPOINT
from sigmagraph.engine.models import load_adapter, load_checkpoint


@pytest.mark.slow
def test_sixteen_rounds_raise_the_reward_on_held_out_prompts_and_the_adapter_keeps_it(tmp_path: Path) -> None:
    before, *_, after = reinforce.train(CHECKPOINT, 16, tmp_path, held_out=16)
    assert after["reward"] > 1.04 * before["reward"]
    assert after["right"] > before["right"] - 0.15
    adapter, model = load_adapter(tmp_path / reinforce.ADAPTER), load_checkpoint(CHECKPOINT).model
    studio = reinforce.Studio(CHECKPOINT)
    studio.trained = reinforce.Trainable(model.with_adapter(adapter, 1.0), {})  # as LoraLoader would load it
    again = studio.measured(reinforce.single_things(16, reinforce.HELD_OUT_SEED, held_out=True))
    assert again.reward == pytest.approx(after["reward"], rel=2e-2)


def test_the_reward_is_what_the_page_says() -> None:
    studio = reinforce.Studio(CHECKPOINT)
    (scene,) = reinforce.single_things(1, reinforce.HELD_OUT_SEED, held_out=True)
    (other,) = [
        one for one in reinforce.single_things(9, 3, held_out=False) if one.things[0].colour != scene.things[0].colour
    ][:1]
    latent = studio.sampling(scene, 1, 0, "euler").run()
    (found,), (wrong,) = studio.judge(latent, scene), studio.judge(latent, other)
    assert found.right == 1.0
    radius = scene.things[0].radius
    assert 0.3 * radius**2 < found.reward < 4.5 * radius**2  # from a ring to a square
    assert wrong == (0.0, 0.0)
