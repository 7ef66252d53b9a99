"""Which workflows a server publishes: the endpoints' folder, the accounts, and the secret of its output URLs."""

import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sigmagraph.engine.compose.owners import output_dirs
from sigmagraph.engine.errors import MissingFile, WriteFailed
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.jobs.job import Job
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.server.access.keys import StoredKeys
from sigmagraph.engine.server.access.rates import Buckets
from sigmagraph.engine.server.endpoints.context import SOURCE, Published
from sigmagraph.engine.server.endpoints.endpoint import load_endpoints
from sigmagraph.engine.server.endpoints.webhook_body import teller
from sigmagraph.engine.server.settings import Settings
from sigmagraph.engine.server.webhook_client import webhook_body
from sigmagraph.engine.shipped import ENDPOINTS, SHIPPED

__all__ = ["published", "with_demo", "words"]

DEMO_FOLDER, DEMO_NAME = "checkpoints", "sigmagraph-demo.safetensors"
DEMO = f"{DEMO_FOLDER}/{DEMO_NAME}"
DEMO_LORA = "loras", "sigmagraph-demo-night.safetensors"
SECRET = "output-urls.key"


def published(settings: Settings, jobs: JobService, keys: StoredKeys) -> Published:
    """The published workflows; raises `BadEndpoint` where a manifest is wrong."""
    home = settings.home
    assert home is not None
    if settings.demo and not any((place / "models" / DEMO).is_file() for place in (home, SHIPPED)):
        raise MissingFile(home / "models" / DEMO, "the demo needs this checkpoint, which comes with the source code")
    return Published(
        endpoints=load_endpoints(settings.endpoints or ENDPOINTS, is_demo=settings.demo),
        keys=keys,
        secret=_secret(home / "user" / SECRET),
        base_url=settings.public_url,
        record_s=settings.keep_requests_s,
        file_s=settings.keep_outputs_s,
        output_dirs=partial(output_dirs, settings.output or home / "output"),
        per_minute=settings.requests_per_minute,
        buckets=Buckets(time.monotonic, lambda: jobs.servers),
    )


def with_demo(aliases: Mapping[str, Mapping[str, Path]], home: Path) -> dict[str, dict[str, Path]]:
    """The aliases, and the demo's files that come with the code where the home has none of its own."""
    found = {folder: dict(names) for folder, names in aliases.items()}
    for folder, name in ((DEMO_FOLDER, DEMO_NAME), DEMO_LORA):
        if not (home / "models" / folder / name).is_file():
            found.setdefault(folder, {})[name] = SHIPPED / "models" / folder / name
    return found


def words(published: Published, folders: Callable[[str], Folders]) -> Callable[[Job], dict[str, Any]]:
    """What webhooks say: each protocol's jobs in its own words."""
    of_endpoints = teller(published, folders)
    return lambda job: of_endpoints(job) if job.source == SOURCE else webhook_body(job)


def _secret(path: Path) -> bytes:
    """What signs output URLs: made once, kept beside the jobs, so that URLs outlive a restart."""
    try:
        with path.open("xb") as file:
            path.chmod(0o600)
            file.write(secrets.token_bytes(32))
    except FileExistsError:
        pass
    except OSError as error:
        raise WriteFailed(path, f"cannot be written: {error.strerror or error}") from error
    return path.read_bytes()
