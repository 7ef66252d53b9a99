"""comfy-script: every node class becomes a Python type; a workflow is written as code."""

import json
import sys

from comfy_script.runtime import Workflow, load

load(sys.argv[1])
from comfy_script.runtime.nodes import EmptyImage, SaveImage  # noqa: E402  # exists after load

with Workflow(wait=True):
    image = EmptyImage(32, 32, 1, 255)
    saved = SaveImage(image, "script")
images = saved.wait()
sys.stdout.write("\n" + json.dumps({"size": list(images[0].size)}) + "\n")  # its threads print as well
