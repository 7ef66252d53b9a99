"""comfy-sdk: run, events, previews, cancel, assets by hash and by reference, typed refusals, lists."""

import json
import os
import sys
import time
from pathlib import Path

os.environ["COMFY_BASE_URL"] = sys.argv[1]

from comfy_sdk import (
    BlobNotFound,
    Comfy,
    IdempotencyKeyReuse,
    InvalidWorkflow,
    NotFound,
    OutputReady,
    Preview,
    Progress,
    StatusChange,
)

graph, picture = json.loads(Path(sys.argv[2]).read_text()), sys.argv[3]
graph["5"]["inputs"]["steps"] = 24  # long enough to be seen at work
client = Comfy()
found: dict[str, object] = {}

job = client.submit(client.workflows.from_json(graph), metadata={"who": "sdk"}, idempotency_key="only-once")
seen = {kind.__name__: 0 for kind in (Progress, Preview, OutputReady, StatusChange)}
for event in job.events():
    seen[type(event).__name__] += 1
    if isinstance(event, Preview):
        assert event.to_pil().size[0] > 0
done = job.result()
found["events"] = {name: count > 0 for name, count in seen.items()}
found["png"] = done.get_outputs("7")[0].to_bytes()[1:4].decode()
found["range"] = done.get_outputs("7")[0].to_bytes(range=(1, 3)).decode()
found["format"] = done.get_workflow().format
found["listed"] = [line.id for line in client.list_jobs(metadata={"who": "sdk"})] == [job.id]

try:
    client.submit(client.workflows.from_json(graph), idempotency_key="only-once")
except IdempotencyKeyReuse:
    found["reuse"] = True

asset = client.assets.from_file(picture)
copied = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "?"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "copied"}},
}
workflow = client.workflows.from_json(copied)
workflow.set_input("1", "image", asset)
found["copied"] = len(client.run(workflow).get_outputs("2"))
again = client.assets.from_file(picture)
again.commit()
found["same"] = (again.id == asset.id, again.created_new)

for name, kind, action in (
    (
        "invalid",
        InvalidWorkflow,
        lambda: client.run(client.workflows.from_json({"1": {"class_type": "No", "inputs": {}}})),
    ),
    ("missing", NotFound, lambda: client.jobs.get("00000000-0000-4000-8000-000000000000")),
):
    try:
        action()
    except kind:
        found[name] = True

graph["5"]["inputs"] |= {"steps": 5000, "seed": 77}
long = client.submit(client.workflows.from_json(graph))
while long.refresh().status == "queued":
    time.sleep(0.1)
long.cancel()
found["cancelled"] = long.wait(60).status
client.assets.delete(asset.id)
try:
    client.assets.get(asset.id)
except (NotFound, BlobNotFound):
    found["deleted"] = True
sys.stdout.write(json.dumps(found) + "\n")
