"""A reward scored by another process: the same numbers, and what goes wrong is said on this side.

Longer than 300 lines: one scripted server, and everything that it can do wrong.
"""

import contextlib
import http.client
import json
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from mixgrpo.errors import RewardError, UserError
from mixgrpo.rewards import CheckedReward, Reward, _http, _remote, load_reward
from mixgrpo.rewards._command import Asked, rewards_asked
from mixgrpo.rewards._remote import RemoteReward, pack, unpack
from mixgrpo.stages.serve_reward import Handler, RewardServer, make_server
from tests.rewards.small_unified_reward import chat_server

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "BACKOFF", 0.01)


class Length:
    """Brightness times the prompt's length; counts calls, and how many are inside at once."""

    name = "length"
    facts: Mapping[str, str] = {"version": "Length 1", "scale": "characters"}

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds
        self.batches: list[int] = []
        self.inside = 0
        self.most_inside = 0
        self.errors: list[Exception] = []

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        self.batches.append(len(images))
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        time.sleep(self.seconds)
        self.inside -= 1
        if self.errors:
            raise self.errors.pop(0)
        return images.mean((1, 2, 3)) * torch.tensor([float(len(prompt)) for prompt in prompts])


@contextlib.contextmanager
def serving(*rewards: Reward, port: int = 0) -> Iterator[RewardServer]:
    checked = {reward.name: CheckedReward(reward.name, reward) for reward in rewards}
    with make_server(checked, "127.0.0.1", port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def random_images(num: int, height: int = 9, width: int = 13) -> Tensor:
    return torch.rand(num, 3, height, width, generator=torch.Generator().manual_seed(0))


PROMPTS = ["a cat", "", "Üñï ☃ " * 100, 'quotes " and \\ and\nlines', "e"]


# The same numbers


def test_scores_are_those_of_the_reward_here_to_the_last_bit():
    images = random_images(5)
    with serving(Length()) as server:
        remote = RemoteReward("length", server.url)
        for given in (images, images.double(), images[:, :, ::2].transpose(2, 3), images.flip(0)):
            here = Length().score(given.float().contiguous(), PROMPTS)
            assert torch.equal(remote.score(given, PROMPTS), here)
        assert remote.score(images, tuple(PROMPTS)).dtype == torch.float32


def test_a_real_reward_and_its_facts_through_the_placement(weights: dict[str, str | None]):
    here = load_reward("tiny_hps", weights["tiny_hps"], CPU)
    images = random_images(6, 32, 32)
    prompts = ["a red circle", "a blue square"] * 3
    with serving(here) as server:
        there = load_reward("tiny_hps", "/weights/on/another/machine", CPU, place=server.url)
        assert torch.equal(there.score(images, prompts), here.score(images, prompts))
        assert there.facts == here.facts
        assert there.elsewhere
        assert not here.elsewhere


def test_many_images_go_in_several_requests(monkeypatch: pytest.MonkeyPatch):
    images = random_images(5)
    monkeypatch.setattr(_remote, "MAX_BYTES", 2 * 4 * images[0].numel())
    reward = Length()
    with serving(reward) as server:
        scores = RemoteReward("length", server.url).score(images, PROMPTS)
        assert reward.batches == [2, 2, 1]
        assert torch.equal(scores, Length().score(images, PROMPTS))
        monkeypatch.setattr(_remote, "MAX_BYTES", 1)  # an image that alone is more goes alone
        assert torch.equal(RemoteReward("length", server.url).score(images, PROMPTS), scores)
        assert RemoteReward("length", server.url).score(images[:0], []).shape == (0,)


def test_clients_at_once_wait_for_each_other():
    reward = Length(seconds=0.05)
    images = random_images(5)
    with serving(reward) as server:
        found: list[Tensor] = []

        def ask() -> None:
            found.append(RemoteReward("length", server.url).score(images, PROMPTS))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    expected = Length().score(images, PROMPTS)
    assert all(torch.equal(scores, expected) for scores in found)
    assert len(found) == 4
    assert reward.most_inside == 1


def test_one_server_may_have_several_rewards():
    class Area(Length):
        name = "area"
        facts: Mapping[str, str] = {}

        def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
            return torch.full((len(images),), float(images.shape[2] * images.shape[3]))

    with serving(Length(), Area()) as server:
        assert RemoteReward("area", server.url).score(random_images(1), ["a"]).item() == 9 * 13
        assert RemoteReward("area", server.url).facts == {}
        assert RemoteReward("length", server.url).facts == Length.facts


# What goes wrong


def test_what_the_reward_says_there_is_said_here_at_once():
    images = random_images(5)
    images[1] = torch.nan
    reward = Length()
    with serving(reward) as server:
        remote = CheckedReward("length", RemoteReward("length", server.url))
        with pytest.raises(RewardError, match="length is not finite for 1 of 5 images"):
            remote.score(images, PROMPTS)
        assert len(reward.batches) == 1
        with pytest.raises(RewardError, match="got 5 images and 4 prompts"):
            RemoteReward("length", server.url).score(images, PROMPTS[:4])


def test_a_hiccup_is_got_over_and_a_fault_is_told(capfd: pytest.CaptureFixture[str]):
    reward = Length()
    with serving(reward) as server:
        remote = RemoteReward("length", server.url, tries=3)
        reward.errors = [RuntimeError("CUDA hiccup")]
        assert remote.score(random_images(1), ["abc"]).isfinite().all()
        reward.errors = [KeyError("weights")] * 3
        with pytest.raises(RewardError, match=r"status 500: .*KeyError.*after 3 tries.*own log"):
            remote.score(random_images(1), ["abc"])
    assert "Traceback" in capfd.readouterr().err  # on the server's side, which is this process here


def test_a_server_that_was_restarted_goes_on():
    with serving(Length()) as server:
        port = server.server_port
        remote = RemoteReward("length", server.url, tries=200)
    timer = threading.Timer(0.3, lambda: None)
    timer.start()

    def restart() -> None:
        timer.join()
        with serving(Length(), port=port):
            done.wait(20)

    done = threading.Event()
    thread = threading.Thread(target=restart)
    thread.start()
    assert remote.score(random_images(1), ["a"]).isfinite().all()
    done.set()
    thread.join()


def test_no_server_names_the_command(monkeypatch: pytest.MonkeyPatch):
    with serving(Length()) as server:
        url = server.url
    with pytest.raises(
        UserError, match=rf"length at {url}: .*refused.*serve-reward --reward length"
    ):
        RemoteReward("length", url)


def test_a_server_of_other_rewards_or_of_another_kind_is_named(monkeypatch: pytest.MonkeyPatch):
    message = r"the server at .* has length\. Start one there: .* --reward pick_score"
    with serving(Length()) as server, pytest.raises(UserError, match=message):
        RemoteReward("pick_score", server.url)
    with chat_server() as server, pytest.raises(UserError, match=r"status 404.*serve-reward"):
        RemoteReward("pick_score", server.url)
    monkeypatch.setattr(_http.Server, "request", lambda *_: {"object": "list"})
    with pytest.raises(UserError, match=r"is no reward server \('\{\"object\": \"list\"\}'\)"):
        RemoteReward("pick_score", "http://127.0.0.1:1")


def test_a_reply_that_is_not_a_score_per_image_is_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(RewardServer, "scores", lambda *_: [1.0])
    message = r"wanted 2 scores, got '\{\"scores\": \[1.0\]\}'"
    with serving(Length()) as server, pytest.raises(RewardError, match=message):
        RemoteReward("length", server.url).score(random_images(2), ["a", "b"])


# What the server takes


def post(server: RewardServer, path: str, body: bytes, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest("POST", path)
    for name, value in ({"Content_Length": str(len(body))} | headers).items():
        if value:
            connection.putheader(name.replace("_", "-"), value)
    connection.endheaders(body)
    response = connection.getresponse()
    return response.status, json.loads(response.read())["error"]


BODIES = {
    "a pickle": (pickle.dumps({"images": 1}), "no safetensors body"),
    "nothing": (b"", "no safetensors body"),
    "a torn one": (pack(random_images(2), ["a", "b"])[:-9], "no safetensors body"),
    "no prompts": (save({"images": random_images(1)}), "KeyError: 'prompts'"),
    "no list": (
        save({"images": random_images(1), "prompts": torch.tensor(list(b'{"a": 1}')).byte()}),
        "no list of strings",
    ),
    "no text": (
        save({"images": random_images(1), "prompts": torch.tensor([0.5])}),
        "no safetensors body",
    ),
    "half floats": (
        save({"images": random_images(1).half(), "prompts": torch.tensor(list(b'["a"]')).byte()}),
        "images are torch.float16, wanted float32",
    ),
}


@pytest.mark.parametrize("case", BODIES)
def test_another_body_is_refused_with_the_reason(case: str):
    body, message = BODIES[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        unpack(body)
    with serving(Length()) as server:
        status, error = post(server, "/score/length", body)
    assert status == 400
    assert message in error


def test_the_limits_of_a_request():
    body = pack(random_images(1), ["a"])
    with serving(Length()) as server:
        assert post(server, "/score/width", body) == (
            404,
            "no reward 'width' here. There are: length.",
        )
        assert post(server, "/score/length", b"", Content_Length="")[0] == 411
        assert post(server, "/score/length", b"", Content_Length=str(2**40))[0] == 413
        assert RemoteReward("length", server.url).score(random_images(1), ["a"]).isfinite().all()


def test_a_request_that_stops_half_way_holds_up_nobody(monkeypatch: pytest.MonkeyPatch):
    assert 0 < Handler.timeout <= 60
    monkeypatch.setattr(Handler, "timeout", 0.2)
    reward = Length()
    with serving(reward) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        connection.putrequest("POST", "/score/length")
        connection.putheader("Content-Length", "1000000")
        connection.endheaders(b"half")
        assert RemoteReward("length", server.url).score(random_images(1), ["a"]).isfinite().all()
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            connection.getresponse()  # closed by the server, and not within the client's 10 s
        assert reward.batches == [1]


def test_an_address_that_is_taken_is_named():
    with (
        serving(Length()) as server,
        pytest.raises(UserError, match=rf"cannot listen on 127.0.0.1:{server.server_port}"),
    ):
        make_server({}, "127.0.0.1", server.server_port)
    for host, port in (("no.such.host.invalid", 0), ("127.0.0.1", 70000)):
        with pytest.raises(UserError, match=f"cannot listen on {host}:{port}"):
            make_server({}, host, port)


# The command line


def test_a_command_names_rewards_paths_and_options():
    asked = rewards_asked(
        "unified_reward,tiny_hps",
        ["tiny_hps=results/a=b"],
        ["unified_reward.url=http://host:1/v1?a=b", "unified_reward.timeout=2"],
    )
    options = {"url": "http://host:1/v1?a=b", "timeout": 2.0}
    assert asked == {"unified_reward": Asked(None, options), "tiny_hps": Asked("results/a=b", {})}
    assert list(asked) == ["unified_reward", "tiny_hps"]


@pytest.mark.parametrize(
    ("names", "paths", "options", "message"),
    [
        ("", [], [], "--reward is empty"),
        ("hps", [], [], "There are: .*tiny_hps"),
        ("tiny_hps", ["results/hps"], [], "--path results/hps: wanted NAME=PATH, NAME of tiny_hps"),
        ("tiny_hps", ["tiny_hps="], [], "wanted NAME=PATH"),
        ("tiny_hps", ["sharpness=a"], [], "wanted NAME=PATH"),
        ("sharpness", [], ["tries=2"], "wanted NAME.OPTION=VALUE. There are: none"),
        ("unified_reward", [], ["unified_reward.retries=2"], "There are: unified_reward.url, "),
        ("unified_reward", [], ["unified_reward.tries=two"], "'two' is no int"),
    ],
)
def test_a_mistake_in_a_command_is_named(names, paths, options, message):
    with pytest.raises(UserError, match=message):
        rewards_asked(names, paths, options)


def test_the_verb_serves_on_this_machine_until_it_is_stopped():
    command = [sys.executable, "-m", "mixgrpo", "serve-reward", "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--reward", "sharpness,colorfulness"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, and what they start, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        line = process.stdout.readline()
        found = re.fullmatch(
            r"(http://127.0.0.1:\d+) scores sharpness, colorfulness; Ctrl-C stops it\n", line
        )
        assert found, line + process.stderr.read()
        images = random_images(3)
        here = load_reward("sharpness", None, CPU).score(images, ["a"] * 3)
        assert torch.equal(RemoteReward("sharpness", found[1]).score(images, ["a"] * 3), here)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0
    assert errors.splitlines()[-1] == "stopped"
    assert "sharpness: 3 images (3, 9, 13)" in errors


# Options


@pytest.fixture(scope="module")
def towers() -> Iterator[str]:
    """URL of a server whose reward was given two of its three options."""
    reward = load_reward("vit_random", None, CPU, {"width": 80, "layers": 1})
    with make_server({"vit_random": reward}, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("options", [{}, {"layers": 1}, {"towers": 3, "width": 80}])
def test_what_a_run_does_not_ask_and_what_the_server_has_are_fine(towers: str, options: dict):
    assert load_reward("vit_random", None, CPU, options, towers).elsewhere


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 2}, "layers is 2 here and 1 at .*Start the server with --option .*layers=2"),
        ({"width": 80, "towers": 1}, "towers is 1 here and 3 at"),
    ],
)
def test_a_server_that_was_started_with_other_options_is_refused(
    towers: str, options: dict, message: str
):
    with pytest.raises(UserError, match=f"reward vit_random: option {message}"):
        load_reward("vit_random", None, CPU, options, towers)


def test_a_server_that_does_not_say_its_options_is_refused_where_one_is_asked():
    with serving(Length()) as server:
        assert RemoteReward("length", server.url).facts == Length.facts
        with pytest.raises(UserError, match="option unit is 'words' here and unknown at"):
            RemoteReward("length", server.url, {"unit": "words"})
