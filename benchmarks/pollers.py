"""Clients that poll, for benchmarks.endpoints: so many ask a URL once per so many seconds until stdin ends.

    python -m benchmarks.pollers URL COUNT EVERY_S HEADERS_AS_JSON

Prints a line once all are under way, and at the end the seconds that each answer took, as a JSON list.
"""

import asyncio
import json
import sys
import time

import aiohttp


async def main(url: str, count: int, every_s: float, headers: dict[str, str]) -> list[float]:
    """What each answer took, in seconds."""
    seconds: list[float] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as client:

        async def poll(place: int) -> None:
            await asyncio.sleep(every_s * place / count)
            while True:
                begun = time.perf_counter()
                async with client.get(url) as response:
                    response.raise_for_status()
                    await response.read()
                seconds.append(time.perf_counter() - begun)
                await asyncio.sleep(max(0.0, every_s - (time.perf_counter() - begun)))

        tasks = [asyncio.create_task(poll(place)) for place in range(count)]
        await asyncio.sleep(every_s + 0.2)
        seconds.clear()
        print("polling", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        failed = [ended.exception() for ended in tasks if ended.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if failed:
        raise SystemExit(f"{len(failed)} pollers failed: {failed[0]}")
    return seconds


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), json.loads(sys.argv[4])))))
