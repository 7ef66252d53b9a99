"""`sigmagraph fit-preview`: a tiny decoder for the previews of a VAE's latents, fitted here and kept beside it."""

from pathlib import Path
from typing import Annotated

import typer

from sigmagraph.engine.cli.options import AsJson

__all__ = ["fit_preview"]


def fit_preview(
    file: Annotated[Path, typer.Argument(help="A VAE, or a checkpoint with one.")],
    prompts: Annotated[
        Path | None, typer.Option(help="A text file, a prompt a line: estimates along their runs are fitted too.")
    ] = None,
    size: Annotated[int, typer.Option(min=64, max=1024, help="Side of the pictures, a multiple of 16.")] = 256,
    steps: Annotated[int, typer.Option(min=100, max=100_000, help="Steps of the fit.")] = 3000,
    output: Annotated[Path | None, typer.Option(help="The file to write.", show_default="FILE with .preview")] = None,
    as_json: AsJson = False,
) -> None:
    """Fit a preview decoder and write it beside the file, where the server finds it."""
    from sigmagraph.engine.cli.console import out, say, write_json
    from sigmagraph.engine.compose.preview_fitting import fit_preview_for

    lines = prompts.read_text("utf-8").splitlines() if prompts is not None else []
    with say().status("") as status:
        found = fit_preview_for(file, [line for line in lines if line.strip()], size, steps, output, status.update)
    if as_json:
        write_json({"file": str(found.path), "latents": found.latents, "rms": found.rms})
    else:
        out().print(f"{found.path}: fitted on {found.latents} latents, rms {found.rms:.1f} of 255", markup=False)
