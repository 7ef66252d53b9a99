"""A server of published workflows as a process that a test may kill: `python -m tests.server.endpoints.front HOME`."""

import asyncio
import sys
from pathlib import Path

from tests.server.endpoints.conftest import serving


async def main(home: Path) -> None:
    """Serve until killed; the address and a key go to `HOME/address`."""
    async with serving(home, per_minute=1e6) as served:
        key_file = home / "key"
        if not key_file.exists():
            key = await served.key(credits=20.5 * 0.1024)
            key_file.write_text(key["x-api-key"], "utf-8")
        draft = home / "address.draft"
        draft.write_text(str(served.client.make_url("")).rstrip("/"), "utf-8")
        draft.rename(home / "address")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
