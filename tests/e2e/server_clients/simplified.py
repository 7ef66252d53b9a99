"""comfy-api-simplified: change a parameter by title, queue, wait, fetch the picture; upload and use it."""

import json
import sys
from pathlib import Path

from comfy_api_simplified import ComfyApiWrapper, ComfyWorkflowWrapper

url, graph, picture = sys.argv[1:4]
api = ComfyApiWrapper(url + "/")
workflow = ComfyWorkflowWrapper(graph)
workflow.set_node_param("KSampler", "seed", 11)
images = api.queue_and_wait_images(workflow, "Save")
uploaded = api.upload_image(picture)
first = next(iter(images.values()))
queue = api.get_queue()
sys.stdout.write(
    json.dumps({"images": len(images), "png": first[:4] == b"\x89PNG", "uploaded": uploaded["name"], "queue": queue})
    + "\n"
)
assert Path(picture).is_file()
