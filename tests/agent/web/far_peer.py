"""A caller on another host: one call with two spoken turns, told as JSON.

python -m tests.agent.web.far_peer https://10.77.0.1:7860 TOKEN
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from tests.agent.web.clusters import over
from tests.agent.web.rig import until


async def hold(url: str, token: str) -> dict[str, Any]:
    """Call, hear the greeting, be answered twice, hang up, rate."""
    allowed = {"Authorization": f"Bearer {token}"}
    async with over(url, verify=False, headers=allowed) as site:  # noqa: S501
        page = site.page()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await page.call()
        connected_s = loop.time() - began
        await until(page.heard, 20)
        for _ in range(2):
            await page.talk(30)
        state = (await page.status())["state"]
        await page.request("POST", "/hangup")
        await until(lambda: page.of("ended"), 20)
        rated = await page.request("POST", "/rating", json={"overall_affect": 70})
        assert page.pc is not None
        received = len(page.peaks)
        lasted_s = page.peaks[-1][0] - page.peaks[0][0]
        return {
            "session": page.id,
            "connected_s": round(connected_s, 2),
            "state": state,
            "said": page.said(),
            "ended": page.of("ended")[0]["how"],
            "rated": rated.status_code,
            "audio_frames": received,
            "seconds": round(lasted_s, 1),
        }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(hold(sys.argv[1], sys.argv[2]))), flush=True)
