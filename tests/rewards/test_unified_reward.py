"""Unified Reward's client: what it sends, what it takes for a score, and that nothing else becomes one.

Longer than 300 lines: one scripted server, and everything that it can do wrong.
"""

import hashlib
import http.client
import socket
import threading
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mixgrpo.errors import RewardError, UserError
from mixgrpo.rewards import _http, load_reward, unified_reward
from mixgrpo.rewards._chat import Answer
from mixgrpo.rewards._http import RequestError, Server
from mixgrpo.rewards.unified_reward import QUESTIONS, UnifiedReward, read_number
from tests.rewards.small_unified_reward import ANSWER, Asked, Reply, by_brightness, chat_server

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "BACKOFF", 0.01)
    monkeypatch.delenv(unified_reward.KEY, raising=False)


def client(url: str, **options) -> UnifiedReward:
    return unified_reward.load(None, CPU, url=url, **{"timeout": 5.0, "tries": 3, **options})


def greys(*levels: float) -> Tensor:
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, 24, 40)


def script(*replies: Reply) -> Callable[[Asked], Reply]:
    """The replies in turn, the last one for ever."""
    left = list(replies)
    return lambda asked: left.pop(0) if len(left) > 1 else left[0]


# What is sent


@pytest.mark.parametrize(
    ("question_type", "digest"),
    [
        ("score", "b691b5ff2d2a0a37f8d1e75c926b4f580fb8130069eb25ad0271600874c52904"),
        ("semantic", "776575c9a5e4e8999b820f7459407c0722e267803eec7ff331dc73fb005f26d5"),
    ],
)
def test_the_questions_are_the_authors_to_the_letter(question_type: str, digest: str):
    assert hashlib.sha256(QUESTIONS[question_type].text.encode()).hexdigest() == digest


def test_a_request_is_what_the_authors_post():
    with chat_server() as server:
        client(server.url, question_type="score").score(greys(0.25), ["a {braced} cat [x]"])
        (asked,) = server.asked
    assert asked.question == QUESTIONS["score"].text.replace("{}", "a {braced} cat [x]")
    assert {k: v for k, v in asked.body.items() if k != "messages"} == {
        "model": "UnifiedReward",
        "temperature": 0,
        "max_tokens": 4096,
    }
    (message,) = asked.body["messages"]
    assert message["role"] == "user"
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]
    assert message["content"][0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert (asked.picture.format, asked.picture.size) == ("JPEG", (40, 24))
    assert asked.picture.getpixel((0, 0)) == (64, 64, 64)


def test_scores_come_back_in_the_order_of_the_images():
    def slow_for_dark_ones(asked: Asked) -> Reply:
        reply = by_brightness(asked)
        return Reply(reply.text, seconds=0.2 if "dark" in asked.question else 0.0)

    levels = [0.0, 1.0, 0.2, 0.8]
    with chat_server(slow_for_dark_ones) as server:
        scores = client(server.url).score(greys(*levels), ["dark", "light"] * 2)
    assert scores.dtype == torch.float32
    assert scores == pytest.approx(torch.tensor([1.0, 5.0, 1.8, 4.2]), abs=1e-6)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_questions_than_allowed_are_under_way(concurrency: int):
    with chat_server(lambda asked: Reply(ANSWER.format(2), seconds=0.05)) as server:
        client(server.url, concurrency=concurrency).score(greys(*[0.5] * 9), ["a"] * 9)
    assert server.most_under_way == concurrency
    assert len(server.asked) == 9


def test_the_key_goes_to_the_server_and_nowhere_else(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(unified_reward.KEY, "sesame")
    with chat_server() as server:
        reward = client(server.url)
        reward.score(greys(0.5), ["a"])
    assert server.asked[0].headers["Authorization"] == "Bearer sesame"
    assert "sesame" not in repr(reward.chat) + repr(reward.facts)


def test_proxies_are_for_other_machines(monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with chat_server() as server:
        assert client(server.url).score(greys(1.0), ["a"]).item() == 5.0


# What is a score


@pytest.mark.parametrize(
    ("question_type", "answer", "score"),
    [
        ("score", "ocean (location): 0\nclouds (object): 1\nFinal Score: 2.33", 2.33),
        ("score", "Final Score:4", 4.0),
        ("score", "**Final Score:** 3.5/5", 3.5),
        ("score", "Final Score: 5.0. A fine picture.", 5.0),
        ("score", "Final Score: 0.75", 0.75),
        ("semantic", ANSWER.format("3.697"), 3.697),
        ("semantic", "Alignment Score (1-5): 2.694700002670288\nStyle Score (1-5): 4", 2.6947),
    ],
)
def test_answers_with_a_score(question_type: str, answer: str, score: float):
    with chat_server(script(Reply(answer))) as server:
        reward = client(server.url, question_type=question_type)
        assert reward.score(greys(0.5), ["a"]).item() == pytest.approx(score)


@pytest.mark.parametrize(
    ("question_type", "answer", "reason"),
    [
        ("score", "I cannot see a picture.", "without a score"),
        ("score", "", "without a score"),
        ("score", "Final Score: ", "without a score"),
        ("score", "Final Score: high", "without a score"),
        ("score", "Final Score: -2", "without a score"),
        ("score", "Final Score: nan", "without a score"),
        ("score", "Final Score: 45", "a score of 45 where 1 to 5"),
        ("score", "Final Score: 5.5", "a score of 5.5 where 1 to 5"),
        ("score", "Alignment Score (1-5): 3", "without a score"),
        ("semantic", "Alignment Score (1-5): X", "without a score"),
        ("semantic", "Final Score: 3", "without a score"),
    ],
)
def test_answers_without_one_are_asked_again_and_then_an_error(
    question_type: str, answer: str, reason: str
):
    with chat_server(script(Reply(answer))) as server:
        reward = client(server.url, question_type=question_type)
        with pytest.raises(RewardError, match=reason) as caught:
            reward.score(greys(0.5), ["a cat"])
    assert len(server.asked) == 3
    assert "'a cat'" in str(caught.value)
    assert "after 3 tries" in str(caught.value)
    assert repr(answer.strip()) in str(caught.value)


def test_nonsense_once_is_forgiven():
    with chat_server(script(Reply("?"), Reply(ANSWER.format(4.5)))) as server:
        assert client(server.url).score(greys(0.5), ["a"]).item() == 4.5


def test_a_number_at_the_limit_of_tokens_may_lack_its_end():
    cut = Reply("Alignment Score (1-5): 3", finish_reason="length")
    with (
        chat_server(script(cut)) as server,
        pytest.raises(RewardError, match="cut off at 7 tokens"),
    ):
        client(server.url, max_tokens=7).score(greys(0.5), ["a"])
    later = Reply("Alignment Score (1-5): 3.25\nCoherence Sc", finish_reason="length")
    with chat_server(script(later)) as server:
        assert client(server.url).score(greys(0.5), ["a"]).item() == 3.25
    assert Answer("a\nb", complete=True).complete_lines == "a\nb"


def test_an_image_that_is_not_finite_is_not_asked_about():
    images = greys(0.5, 0.5, 0.5).clone()
    images[1, 2, 3, 4] = torch.nan
    with chat_server() as server:
        scores = client(server.url).score(images, ["a", "b", "c"])
        assert scores.isnan().tolist() == [False, True, False]
        assert len(server.asked) == 2
        checked = load_reward("unified_reward", None, CPU, {"url": server.url})
        with pytest.raises(RewardError, match="not finite for 1 of 3"):
            checked.score(images, ["a", "b", "c"])


@pytest.mark.parametrize("question_type", QUESTIONS)
def test_the_question_itself_holds_no_score(question_type: str):
    """A model that only repeats what it was asked has not answered."""
    with pytest.raises(ValueError, match="without a score"):
        read_number(QUESTIONS[question_type].text, QUESTIONS[question_type].pattern)


# When the server fails


GOOD = Reply(ANSWER.format(2))
PASSING = {
    "500": (Reply(raw=b"CUDA out of memory", status=500), "status 500: 'CUDA out of memory'"),
    "503": (Reply(raw=b"loading", status=503), "status 503"),
    "429": (Reply(raw=b"slow down", status=429), "status 429"),
    "half a body": (Reply(ANSWER.format(3), missing=50), "the answer broke off"),
    "half a JSON": (Reply(raw=b'{"choices": [{"mess'), "not JSON: .*choices"),
    "no JSON": (Reply(raw=b"<html>proxy</html>"), "not JSON: '<html>proxy"),
    "no choices": (Reply(raw=b'{"choices": []}'), "no chat completion"),
    "a list": (Reply(raw=b"[1]"), "no chat completion"),
    "a null": (Reply(text=None), "an answer without text"),
    "an odd body": (Reply(raw=b'{"error": ["no", 1]}', status=500), r"status 500: '.*no.*, 1"),
    "silence": (Reply(ANSWER.format(3), seconds=1.0), "no answer within 0.3 s"),
}


@pytest.mark.parametrize("case", PASSING)
def test_a_passing_failure_is_got_over_and_a_lasting_one_is_an_error(case: str):
    bad, message = PASSING[case]
    timeout = 0.3 if bad.seconds else 5.0
    with chat_server(script(bad, bad, GOOD)) as server:
        assert client(server.url, timeout=timeout).score(greys(0.5), ["a"]).item() == 2.0
        assert len(server.asked) == 3
    with chat_server(script(bad)) as server:
        with pytest.raises(RewardError, match=rf"for prompt 'a': {message}"):
            client(server.url, timeout=timeout).score(greys(0.5), ["a"])
        assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(400, "served-model-name"), (404, "served-model-name"), (401, unified_reward.KEY)],
)
def test_what_asking_again_does_not_mend_is_asked_once(status: int, remedy: str):
    reply = Reply(raw=b"Server is pinned to 'other'.", status=status)
    with chat_server(script(reply), models=None) as server:
        with pytest.raises(RewardError, match=f"status {status}.*pinned to 'other'.*{remedy}"):
            client(server.url).score(greys(0.5), ["a"])
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    "body",
    [
        "no such model",
        '{"detail": "no such model"}',
        '{"error": {"message": "no such model", "code": 404}}',
        '{"object": "error", "message": "no such model"}',
    ],
)
def test_the_servers_own_words_are_shown_without_their_wrapping(body: str):
    with (
        chat_server(script(Reply(raw=body.encode(), status=404))) as server,
        pytest.raises(RewardError, match=r"'a': status 404: 'no such model'\. Is it the server"),
    ):
        client(server.url).score(greys(0.5), ["a"])


def test_the_first_failure_ends_the_batch():
    def only_the_first_fails(asked: Asked) -> Reply:
        return Reply(raw=b"no", status=400) if "bad" in asked.question else GOOD

    with chat_server(only_the_first_fails) as server:
        with pytest.raises(RewardError, match="prompt 'bad'"):
            client(server.url, concurrency=2).score(greys(*[0.5] * 200), ["bad"] + ["good"] * 199)
        before = -1
        while before != len(server.asked):
            before = len(server.asked)
            time.sleep(0.2)
        assert before < 200


def test_an_answer_that_comes_drop_by_drop_is_late_too():
    """Each drop is in time for the socket; only a clock over the whole of it sees."""
    listening = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        connection, _ = listening.accept()
        connection.recv(10**6)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        try:
            while True:
                connection.sendall(b" ")
                time.sleep(0.05)
        except OSError:
            pass

    threading.Thread(target=drip, daemon=True).start()
    server = Server(url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=0.4, tries=1)
    start = time.monotonic()
    with pytest.raises(RequestError, match=r"no answer within 0.4 s"):
        server.request("/")
    assert time.monotonic() - start < 5
    listening.close()


class Waits(threading.Event):
    """Does not wait, but notes for how long it should have."""

    def __init__(self):
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return False


def test_the_pause_doubles_and_is_what_the_server_asks_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_http, "BACKOFF", 1.0)
    asks = {None: [1, 2, 4, 8], "5": [5, 5, 5, 8], "3600": [30] * 4, "tomorrow": [1, 2, 4, 8]}
    for header, expected in asks.items():
        headers = {"Retry-After": header} if header else {}
        with chat_server(script(Reply(raw=b"", status=503, headers=headers))) as stub:
            waits, server = Waits(), Server(url=stub.url, timeout=5, tries=5)
            with pytest.raises(RequestError, match="after 5 tries"):
                server.ask(lambda s=server: s.request("/v1/chat/completions", b"{}"), waits)
        assert waits.seconds == pytest.approx(expected, rel=0.26)


def test_waiting_ends_when_the_batch_has_failed():
    stop = threading.Event()
    stop.set()
    with chat_server(script(Reply(raw=b"", status=503))) as stub:
        server = Server(url=stub.url, timeout=5, tries=5)
        with pytest.raises(RequestError, match="after 1 try"):
            server.ask(lambda: server.request("/v1/chat/completions", b"{}"), stop)


# Before anything starts


def test_no_server_is_said_when_the_reward_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(
        UserError, match=rf"127.0.0.1:{port}.*refused.*MIXGRPO_REWARDS=.unified_reward=http"
    ):
        client(f"http://127.0.0.1:{port}")


def test_a_server_of_another_model_is_said_when_the_reward_is_loaded():
    other = {"id": "Qwen/Qwen3-8B", "owned_by": "vllm", "root": "Qwen/Qwen3-8B"}
    with chat_server(models=[other]) as server:
        with pytest.raises(
            UserError,
            match=r"serves Qwen/Qwen3-8B, wanted UnifiedReward.*--served-model-name UnifiedReward",
        ):
            client(server.url)
        assert client(server.url, model="Qwen/Qwen3-8B").facts["version"] == "Qwen/Qwen3-8B"


@pytest.mark.parametrize(
    "models", [None, [], [{"id": "google/gemma-4", "owned_by": "google"}], [{"name": "odd"}]]
)
def test_a_list_that_is_not_of_what_is_served_says_nothing(models: list[dict[str, str]] | None):
    """`transformers serve` lists its download cache."""
    with chat_server(models=models) as server:
        assert client(server.url).score(greys(1.0), ["a"]).item() == 5.0


def test_facts_name_model_weights_and_scale():
    with chat_server() as server:
        assert load_reward("unified_reward", None, CPU, {"url": server.url}).facts == {
            "version": "UnifiedReward",
            "checkpoint": "owner/weights",
            "scale": "the number answered, 1 to 5; higher is better",
            "backend": "chat completions server",
            "question_type": "semantic",
        }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"question_type": "style"}, "'style' is unknown. There are: score, semantic"),
        ({"tries": 0}, "tries=0, wanted a whole number above 0"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"timeout": -1.0}, "timeout=-1.0, wanted a number above 0"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"url": "127.0.0.1:8080"}, "is no address of a server, wanted http://HOST:PORT"),
        ({"url": "ftp://host"}, "is no address of a server"),
        ({"url": ""}, "is no address of a server"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str):
    with pytest.raises(UserError, match=message):
        unified_reward.load(None, CPU, **options)


def test_weights_are_the_servers():
    with pytest.raises(UserError, match="has no weights here, got path '/models/ur'"):
        unified_reward.load("/models/ur", CPU)


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_the_address_may_be_given_as_any_client_wants_it(end: str):
    with chat_server() as server:
        assert client(server.url + end).score(greys(0.0), ["a"]).item() == 1.0


def test_a_body_that_breaks_off_is_seen_by_this_python():
    """What `Server._read` is written against: `length` counts what is still missing."""
    with chat_server(script(Reply("x", missing=9))) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
        connection.request("POST", "/v1/chat/completions", b"{}")
        response = connection.getresponse()
        while response.read1(2**16):
            pass
        assert response.length == 9
        connection.close()
