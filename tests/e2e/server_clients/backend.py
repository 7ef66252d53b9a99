"""sd-backend-client: finds out what server this is, then text to image, image to image and inpainting."""

import json
import sys

from PIL import Image, ImageDraw
from sd_backend_client import ComfyUiWebservice, DiffusionParams, connect_to_backend

backend, progress = connect_to_backend(sys.argv[1]), []
base = {
    "sd_model_name": backend.list_checkpoints()[0].name,
    "steps": 4,
    "width": 128,
    "height": 128,
    "seed": 5,
    "sampler": "euler",
    "scheduler": "simple",
    "cfg_scale": 4.0,
}
drawn = backend.submit_txt2img(DiffusionParams(prompt="a red circle", batch_size=2, **base)).wait(
    120, 0.1, progress.append
)
mask = Image.new("L", (128, 128), 0)
ImageDraw.Draw(mask).rectangle((32, 32, 96, 96), fill=255)
more = {"init_images": [drawn.images[0]], "denoising_strength": 0.6}
changed = backend.submit_img2img(DiffusionParams(prompt="a blue circle", **base, **more)).wait(120, 0.1)
painted = backend.submit_inpaint(DiffusionParams(prompt="a star", mask=mask, **base, **more)).wait(120, 0.1)
sys.stdout.write(
    json.dumps(
        {
            "comfyui": isinstance(backend, ComfyUiWebservice),
            "drawn": [list(image.size) for image in drawn.images],
            "changed": list(changed.images[0].size),
            "painted": list(painted.images[0].size),
            "watched": bool(progress),
            "samplers": {"euler", "dpmpp_2m"} <= {one.name for one in backend.list_samplers()},
        }
    )
)
