"""`python -m models.demo STAGE`: train, write and measure the demo checkpoint.

Stages, in order: `vae`, `diffusion` and `decoder` train (and resume when started again), `export` writes the
checkpoint, `preview` fits the decoder of its previews, `check` measures it on prompts held out of training, and
`sheet` draws the contact sheet of the README. `reinforce` trains an adapter by a reward (docs/reinforcement.md),
`night` the LoRA of the examples.
"""

import argparse
import logging
from pathlib import Path

from models.demo import autoencoder, diffusion, export, measure, night, reinforce, sheet
from models.demo.budget import log
from models.demo.scenes import scenes
from sigmagraph.engine.compose.preview_fitting import fit_preview_for

MINUTES = {"vae": 15.0, "diffusion": 36.0, "decoder": 15.0}
PREVIEWED, PREVIEW_SEED = 120, 3
NIGHTS = 40
SHEET = Path("docs/contact-sheet.png")


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(
        prog="python -m models.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = ["vae", "diffusion", "decoder", "export", "preview", "check", "sheet", "reinforce", "night"]
    parser.add_argument("stage", choices=stages)
    parser.add_argument("--folder", type=Path, default=Path("models/demo/run"), help="where training state is kept")
    parser.add_argument("--minutes", type=float, help="training time of the stage (default: as for the shipped file)")
    parser.add_argument("--checkpoint", type=Path, default=export.CHECKPOINT, help="the file to write or measure")
    parser.add_argument("--count", type=int, default=200, help="how many held-out prompts `check` asks for")
    parser.add_argument("--rounds", type=int, default=30, help="rounds of `reinforce`, 32 pictures each")
    parser.add_argument("--steps", type=int, default=110, help="steps of `night`")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    minutes = options.minutes or MINUTES.get(options.stage, 0.0)
    match options.stage:
        case "vae":
            autoencoder.train(options.folder, minutes)
        case "diffusion":
            diffusion.train(options.folder, minutes)
        case "decoder":
            autoencoder.train_decoder(options.folder, minutes)
        case "export":
            log.info("wrote %s", export.export(options.folder, options.checkpoint))
        case "preview":
            captions = [scene.caption for scene in scenes(PREVIEWED, PREVIEW_SEED, held_out=False)]
            log.info("%s", fit_preview_for(options.checkpoint, captions, side=128))
        case "check":
            report(options.checkpoint, options.count)
        case "reinforce":
            reinforce.train(options.checkpoint, options.rounds, options.folder)
        case "night":
            night.train(options.checkpoint, options.steps)
            log.info("%s", night.measured(options.checkpoint, NIGHTS))
        case "sheet":
            log.info("wrote %s", sheet.write(options.checkpoint, SHEET))


def report(checkpoint: Path, count: int) -> None:
    """Log the two figures of the model card: reconstruction and obedience."""
    pipeline, score = measure.Pipeline(checkpoint), measure.Score()
    log.info("vae: %.2f dB on %d unseen pictures", measure.reconstruction(pipeline), measure.RECONSTRUCTED)
    for scene, _, verdict in measure.judged(pipeline, measure.held_out(count)):
        score.add(scene, verdict)
        if score.total % 20 == 0:
            log.info("%s", score)
    for scene, verdict in score.wrong:
        log.info("wrong: %s: %s", scene.caption, ", ".join(f"{f.colour} {f.shape}" for f in verdict.found) or "nothing")
    log.info("%s", score)


if __name__ == "__main__":
    main()
