"""comfy-ui-client of PyPI: uploads, runs, watches, fetches; then everything it can look at."""

import json
import sys
from pathlib import Path

from comfy_ui_client.client import ComfyUIClient
from comfy_ui_client.type import ImageRef

address, graph, picture = (
    sys.argv[1].removeprefix("http://"),
    json.loads(Path(sys.argv[2]).read_text("utf-8")),
    sys.argv[3],
)
graph["5"]["inputs"]["seed"] = 77  # or the cache has it, and no step is told
client, steps, ended = ComfyUIClient(address), [], []
uploaded = client.upload_image(ImageRef(filename="ui.png", subfolder="", type="input"), picture)
found = client.get_outputs(graph, None, lambda node, at, total: steps.append((at, total)), ended.append)["images"]
[data] = [
    data
    for kinds in found.values()
    for folders in kinds.values()
    for files in folders.values()
    for data in files.values()
]
sys.stdout.write(
    json.dumps(
        {
            "uploaded": uploaded["name"],
            "png": data[:4] == b"\x89PNG",
            "progress": (4, 4) in steps,
            "executed": len(ended),
            "looked": [
                isinstance(client.get_embeddings(), list),
                isinstance(client.get_extensions(), list),
                "devices" in client.get_system_stats(),
                "KSampler" in client.get_object_info("KSampler"),
                client.get_prompt()["exec_info"]["queue_remaining"] == 0,
            ],
        }
    )
)
