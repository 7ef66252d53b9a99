"""Which workflows a server publishes: the endpoints' folder, the accounts, and the secret of its output URLs."""

import secrets
from pathlib import Path

from engine.cli.endpoints import ENDPOINTS
from engine.errors import MissingFile, WriteFailed
from engine.jobs.service import JobService
from engine.server.endpoints.accounts import StoredAccounts
from engine.server.endpoints.context import Published
from engine.server.endpoints.endpoint import load_endpoints
from engine.server.keys import StoredKeys
from engine.server.settings import Settings

__all__ = ["published"]

DEMO = "checkpoints/sigmagraph-demo.safetensors"
SECRET = "output-urls.key"


def published(settings: Settings, jobs: JobService, keys: StoredKeys) -> Published:
    """The published workflows; raises `BadEndpoint` where a manifest is wrong."""
    home = settings.home
    assert home is not None
    if settings.demo and not (home / "models" / DEMO).is_file():
        raise MissingFile(home / "models" / DEMO, "the demo needs this checkpoint, which comes with the source code")
    return Published(
        endpoints=load_endpoints(settings.endpoints or ENDPOINTS, is_demo=settings.demo),
        accounts=StoredAccounts(jobs.accounts, keys),
        secret=_secret(home / "user" / SECRET),
        base_url=settings.public_url,
        per_minute=settings.requests_per_minute,
    )


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
