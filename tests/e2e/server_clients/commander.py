"""comfy-commander: a drawing of the editor, converted by the server, one value changed, run and fetched."""

import json
import sys

from comfy_commander import ComfyUIServer, Workflow

url, path = sys.argv[1:3]
server, workflow = ComfyUIServer(url), Workflow.from_file(path)
is_drawing = workflow.api_json is None
workflow.ensure_api_format(server)
workflow.node(class_type="KSampler").param("seed").set(4321)
done = server.execute(workflow, poll_interval=0.1, timeout=120)
sys.stdout.write(
    json.dumps(
        {
            "drawing": is_drawing,
            "status": done.status,
            "error": done.error_message,
            "images": len(done.media),
            "png": all(bytes(each.data[:4]) == b"\x89PNG" for each in done.media),
        }
    )
)
