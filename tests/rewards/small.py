"""Every reward of the package, as a test can load it: small weights in the real file formats, or a stub server."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mixgrpo.rewards._command import Asked
from tests.rewards.small_clip_score import make_clip_score
from tests.rewards.small_hps_v2_1 import make_hps_v2_1
from tests.rewards.small_image_reward import make_image_reward
from tests.rewards.small_pick_score import make_pick_score
from tests.rewards.small_unified_reward import chat_server

MAKERS = {
    "hps_v2_1": make_hps_v2_1,
    "pick_score": make_pick_score,
    "image_reward": make_image_reward,
    "clip_score": make_clip_score,
}
"""What writes the weights of a reward into a directory and returns the path to load."""


@contextlib.contextmanager
def real_rewards(directory: Path) -> Iterator[dict[str, Asked]]:
    """Path and options of the five real rewards, by name; the server runs as long as the block."""
    asked = {name: Asked(make(directory / name)) for name, make in MAKERS.items()}
    with chat_server() as server:
        yield {**asked, "unified_reward": Asked(None, {"url": server.url})}
