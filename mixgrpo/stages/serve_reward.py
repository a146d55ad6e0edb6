"""Score for other processes over HTTP, until stopped: on a GPU of its own, or in an environment of its own.

    python -m mixgrpo serve-reward --reward hps_v2_1,pick_score --device cuda:1

Listens on this machine only unless --host says otherwise. There is no password: whoever reaches the port can have
images scored, and no more than that (bodies are tensors and text, nothing in them is executed).
`mixgrpo/rewards/_remote.py` is the client.
"""

import json
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from mixgrpo.errors import UserError
from mixgrpo.rewards import CheckedReward, load_reward
from mixgrpo.rewards._command import rewards_asked
from mixgrpo.rewards._remote import MAX_BODY, unpack

LOOPBACK = ("127.0.0.1", "localhost")


def run(
    *, reward: str, path: list[str], option: list[str], device: str | None, host: str, port: int
) -> None:
    """Load the rewards, print the URL on stdout once they are ready, serve until Ctrl-C. port 0: a free one."""
    asked = rewards_asked(reward, path, option)
    rewards = {
        name: load_reward(name, one.path, _device(device), one.options)
        for name, one in asked.items()
    }
    with make_server(rewards, host, port) as server:
        if host not in LOOPBACK:
            sys.stderr.write(f"{host} may be reached from other machines; there is no password.\n")
        sys.stdout.write(f"{server.url} scores {', '.join(rewards)}; Ctrl-C stops it\n")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.stderr.write("stopped\n")


class RewardServer(ThreadingHTTPServer):
    """A thread per request; each reward scores for one request at a time."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], rewards: Mapping[str, CheckedReward]):
        super().__init__(address, Handler)
        self.rewards = rewards
        self.locks = {name: threading.Lock() for name in rewards}

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://{self.server_address[0]!s}:{self.server_port}"

    def scores(self, name: str, body: bytes) -> list[float]:
        """What reward `name` gives the images of `body`. ValueError for a body that is none."""
        images, prompts = unpack(body)
        with self.locks[name], torch.no_grad():
            start = time.monotonic()
            scores = self.rewards[name].score(images, prompts).tolist()
        seconds = time.monotonic() - start
        sys.stderr.write(
            f"{name}: {len(images)} images {tuple(images.shape[1:])}, {seconds:.1f} s\n"
        )
        return scores


class Handler(BaseHTTPRequestHandler):
    """GET /facts and POST /score/{name}; every reply is JSON."""

    server: RewardServer
    protocol_version = "HTTP/1.1"
    timeout = 60
    """Seconds without a byte after which a client counts as gone."""

    def do_GET(self) -> None:
        """What is served."""
        if self.path != "/facts":
            self.reply(404, {"error": f"no {self.path} here, wanted /facts or /score/NAME"})
            return
        rewards = self.server.rewards
        facts = {name: reward.facts for name, reward in rewards.items()}
        self.reply(200, {"rewards": facts, "options": {n: r.options for n, r in rewards.items()}})

    def do_POST(self) -> None:
        """Scores of the images in the body."""
        body = self.body()
        if body is None:
            return
        name = self.path.removeprefix("/score/")
        if name not in self.server.rewards:
            served = ", ".join(self.server.rewards)
            self.reply(404, {"error": f"no reward {name!r} here. There are: {served}."})
            return
        try:
            scores = self.server.scores(name, body)
        except UserError as error:
            self.reply(422, {"error": str(error)})
        except ValueError as error:
            self.reply(400, {"error": str(error)})
        except Exception as error:
            sys.stderr.write(traceback.format_exc())
            self.reply(500, {"error": f"{type(error).__name__}: {error}"})
        else:
            self.reply(200, {"scores": scores})

    def body(self) -> bytes | None:
        """The whole body; None, with the reply sent, when there is none or one that is too long."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MAX_BODY:
            self.close_connection = True
            wanted = f"a body of at most {MAX_BODY} bytes, with its Content-Length"
            self.reply(413 if length.isdigit() else 411, {"error": f"wanted {wanted}"})
            return None
        body = self.rfile.read(int(length))
        if len(body) == int(length):
            return body
        self.close_connection = True  # the client went away half way
        return None

    def reply(self, status: int, content: dict[str, Any]) -> None:
        """Send `content` as JSON."""
        data = json.dumps(content).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except ConnectionError:
            self.close_connection = True  # the client did not wait for it

    def log_message(self, format: str, *args: Sequence[Any]) -> None:
        """Nothing: `RewardServer.scores` says what was done."""


def make_server(rewards: Mapping[str, CheckedReward], host: str, port: int) -> RewardServer:
    """A server that listens already. UserError when the address is taken or not this machine's."""
    try:
        return RewardServer((host, port), rewards)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot listen on {host}:{port} ({error}). Give another --port (0 takes a free one) or --host."
        ) from None


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        message = str(error).splitlines()[0]
        raise UserError(
            f"--device {name}: {message}. Wanted cpu, cuda or cuda:N of this machine."
        ) from None
