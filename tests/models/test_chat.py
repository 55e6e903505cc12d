"""Chat endpoints, against a real HTTP server on loopback that refuses, breaks off, dawdles and
rambles."""

import asyncio
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import openai
import pytest
from serving import ChatServer, Fault

from introspect_utils.models import chat
from introspect_utils.models.chat import Endpoint, complete
from introspect_utils.models.chat_cache import Cache, Reply
from introspect_utils.scores.judge import load_judge
from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError

FAULTS = [
    Fault(429, (("Retry-After", "1"),)),
    Fault(500),
    Fault(503),
    Fault(reset=True),
    Fault(half=True),
    Fault(wait=2),  # longer than the time-out
    "Well, as a language model I would say",
    "",
]

# as above, and cheap to wait for
TOO_MANY = Fault(429, (("Retry-After-Ms", "20"),))
CHEAP_FAULTS = [TOO_MANY, Fault(500), Fault(reset=True), Fault(half=True), Fault(wait=1.5), "prose"]


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def endpoint(tmp_path):
    """Makes an endpoint at a server."""

    def make(server=None, **changes):
        settings = {"base_url": server.url} if server else {}
        return Endpoint("model-x", **settings | {"cache_folder": tmp_path / "cache"} | changes)

    return make


def number(reply: str) -> int | None:
    return int(reply) if reply.strip().isdigit() else None


def n_cached(folder) -> int:
    """Prompts with a usable reply in the cache."""
    with sqlite3.connect(folder / "replies.sqlite") as file:
        [[n]] = file.execute("select count(*) from replies where trim(reply) glob '[0-9]*'")
    return n


def square(request: dict) -> str:
    return str(int(re.search(r"\d+", request["prompt"])[0]) ** 2)


def questions(n: int) -> list[str]:
    return [f"what is the square of {i}" for i in range(n)]


def test_every_prompt_is_answered_once_whatever_goes_wrong(endpoint, capsys):
    def reply(request):
        i = int(request["prompt"].split()[-1])
        return FAULTS[i % len(FAULTS)] if request["nth"] == 1 and i < 16 else square(request)

    with ChatServer(reply) as server:
        model = endpoint(server, concurrency=6, timeout=1, price_in=1000.0, price_out=50_000.0)
        assert complete(questions(24), model, number) == [i**2 for i in range(24)]
    assert 2 <= server.most_open
    unusable = {prompt for prompt in questions(16) if int(prompt.split()[-1]) % len(FAULTS) >= 6}
    assert server.delivered == {prompt: 2 if prompt in unusable else 1 for prompt in questions(24)}
    calls, usage = server.delivered.total(), server.usage
    cost = (usage["prompt_tokens"] * 1000 + usage["completion_tokens"] * 50_000) / 1e6
    assert calls == 28 and usage["prompt_tokens"] == 6 * 28
    said = f"model-x: 28 calls, 4 of them with an unusable reply; {usage['prompt_tokens']} tokens in and "
    assert f"{said}{usage['completion_tokens']} out: ${cost:.4f}\n" in capsys.readouterr().out


def test_three_in_ten_calls_fail_and_every_row_is_scored_once_and_paid_for_once(
    tmp_path, capsys, monkeypatch
):
    """The judge over 80 rows: interrupted half way, taken up again; any call may fail, at
    random."""
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.02)
    draw, lock, stopped = random.Random(0), threading.Lock(), threading.Semaphore(1)
    pairs = [(f"words for animal {i}", f"names of animals {i}") for i in range(80)]
    wanted = [i % 5 / 4 for i in range(80)]
    injected = Counter()

    def reply(request):
        with lock:
            failed = draw.random() < 0.3
            fault = draw.randrange(len(CHEAP_FAULTS))
        if sum(server.delivered.values()) >= 40 and stopped.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGINT)
        if failed:
            injected[fault] += 1
            return CHEAP_FAULTS[fault]
        return str(
            int(re.search(r"Predicted: words for animal (\d+)", request["prompt"])[1]) % 5 + 1
        )

    with ChatServer(reply) as server:
        endpoint = Endpoint(
            "m", server.url, timeout=1, price_in=1000.0, price_out=50_000.0, cache_folder=tmp_path
        )
        judge = load_judge("openai", endpoint)
        with pytest.raises(KeyboardInterrupt):
            judge.rate(pairs)
        before = Counter(server.delivered)
        assert 40 <= n_cached(tmp_path) < 80
        assert judge.rate(pairs) == wanted
        calls = server.delivered.total()
        assert judge.rate(pairs) == wanted and server.delivered.total() == calls
    assert injected.keys() == set(range(len(CHEAP_FAULTS))) and injected.total() > 20
    prose = {i for i, fault in enumerate(CHEAP_FAULTS) if isinstance(fault, str)}
    assert calls == 80 + sum(
        injected[i] for i in prose
    )  # nothing usable was paid for twice, nothing unusable was kept
    assert n_cached(tmp_path) == 80 and before.total() < calls
    said = re.findall(
        r"m: ([\d,]+) calls, .*?; ([\d,]+) tokens in and ([\d,]+) out: \$([\d.]+)\n",
        capsys.readouterr().out,
    )
    paid = [sum(int(part[i].replace(",", "")) for part in said) for i in range(3)]
    assert (
        paid == [calls, server.usage["prompt_tokens"], server.usage["completion_tokens"]]
        and len(said) == 2
    )
    assert sum(float(part[3]) for part in said) == pytest.approx(
        (paid[1] * 1000 + paid[2] * 50_000) / 1e6, abs=1e-3
    )


def test_no_more_calls_at_once_than_allowed(endpoint):
    with ChatServer(square) as server:
        complete(questions(20), endpoint(server, concurrency=3), number)
    assert server.most_open <= 3


def test_the_estimate_comes_first(endpoint, capsys):
    printed = []

    def reply(request):
        printed.append(capsys.readouterr().out)
        return "1"

    prompts = ["x" * 4000, "y" * 8000]
    with ChatServer(reply) as server:
        complete(
            prompts,
            endpoint(server, concurrency=1, max_tokens=50, price_in=10.0, price_out=100.0),
            number,
        )
    expected = "model-x: 2 prompts to ask, 0 in the cache; about 3,000 tokens in and at most 100 out: at most about $0.0400\n"
    assert printed[0] == expected


def test_the_server_says_when_to_come_back(endpoint):
    with ChatServer(
        lambda request: Fault(429, (("Retry-After", "2"),)) if request["nth"] == 1 else "7"
    ) as server:
        assert complete(["a"], endpoint(server), number) == [7]
    first, second = server.times["a"]
    assert second - first >= 2


def test_waits_grow(endpoint):
    with ChatServer(lambda request: Fault(500) if request["nth"] <= 2 else "7") as server:
        assert complete(["a"], endpoint(server), number) == [7]
    first, second, third = server.times["a"]
    assert second - first > 0.3 and third - second > 0.7


def test_what_is_in_the_cache_is_not_asked(endpoint, monkeypatch):
    with ChatServer(square) as server:
        first = complete(questions(5), endpoint(server), number)
    assert complete(questions(5)[::-1], endpoint(server), number) == first[::-1]  # it is closed


def test_another_server_is_another_model(endpoint, monkeypatch):
    with ChatServer(square) as first, ChatServer(lambda request: "7") as second:
        assert complete(["3"], endpoint(first), number) == [9]
        assert complete(["3"], endpoint(second), number) == [7]
        monkeypatch.setenv("OPENAI_BASE_URL", second.url + "/")  # the same, by the environment
        assert complete(["3"], endpoint(), number) == [7] and len(second.requests) == 1
        assert endpoint().label == f"model-x at {second.url}"
    monkeypatch.setenv("OPENAI_BASE_URL", "https://someone:secret@host.org/v1")
    assert (
        endpoint().label
        == "model-x at https://host.org/v1"
        == endpoint().key("p")[0:2][0] + (" at " + endpoint().key("p")[1])
    )
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert endpoint().label == "model-x"


@pytest.mark.parametrize("change", [{"model": "model-y"}, {"temperature": 0.5}, {"max_tokens": 3}])
def test_another_model_or_setting_is_asked_again(endpoint, change):
    model = Endpoint(**vars(endpoint()) | change)
    with ChatServer(square) as server:
        complete(["2"], endpoint(server), number)
        complete(["2"], Endpoint(**vars(model) | {"base_url": server.url}), number)
        complete(["2"], Endpoint(**vars(model) | {"base_url": server.url}), number)
    assert server.delivered == {"2": 2}
    sent = {key: server.requests[1][key] for key in ("model", "temperature", "max_tokens")}
    assert sent == {"model": "model-x", "temperature": 0, "max_tokens": 64} | change


def test_equal_prompts_are_asked_once(endpoint):
    with ChatServer(square) as server:
        assert complete(["3", "4", "3", "3"], endpoint(server), number) == [9, 16, 9, 9]
    assert server.delivered == {"3": 1, "4": 1}


def test_a_cached_reply_that_another_parse_cannot_use_is_asked_again(endpoint):
    with ChatServer(lambda request: "ten" if request["nth"] == 1 else "10") as server:
        assert complete(["a"], endpoint(server), str) == ["ten"]
        assert complete(["a"], endpoint(server), number) == [10]
        assert complete(["a"], endpoint(server), number) == [10]
    assert server.delivered == {"a": 2}


def test_an_unusable_reply_is_never_a_number_and_is_paid_for_five_times_in_all(endpoint, capsys):
    def reply(request):
        return "I cannot say" if request["prompt"] == "the odd one" else "1"

    with ChatServer(reply) as server:
        model, prompts = endpoint(server, concurrency=1), ["a", "the odd one", "b"]
        for _ in range(2):
            assert complete(prompts, model, number) == [1, None, 1]
            said = capsys.readouterr().out
            assert "model-x: 1 of 3 prompts have no answer; the last one: 'the odd one'" in said
        asked = [r for r in server.requests if r["messages"][0]["content"] == "the odd one"]
        assert [request["temperature"] for request in asked] == [0, 1, 1, 1, 1]
        assert complete(["the odd one", "a"], model, str) == ["I cannot say", "1"]
    assert server.delivered == {"a": 1, "b": 1, "the odd one": 5}


def test_attempts_are_counted_through_a_kill(endpoint):
    with ChatServer(lambda request: "no") as server:
        model = endpoint(server)
        with closing(Cache(model.cache_folder)) as cache:
            cache.write(Reply("no", 3), *model.key("a"))
        with pytest.raises(UserError, match="no usable reply to 1 of 1 prompts, where 0 may"):
            complete(["a"], model, number)
    assert server.delivered == {"a": 2}


@pytest.mark.parametrize(
    ("n", "refused", "fails"),
    [(1, 1, True), (2, 1, False), (2, 2, True), (60, 2, True), (200, 2, False)],
)
def test_a_refused_prompt_stops_nothing_and_too_many_do(endpoint, n, refused, fails):
    """HTTP 400 of one prompt: a content filter, or a prompt too long."""
    bad = {f"what is the square of {i}" for i in range(refused)}

    def reply(request):
        return Fault(422 if n == 2 else 400) if request["prompt"] in bad else square(request)

    with ChatServer(reply) as server:
        model = endpoint(server, concurrency=2)
        if fails:
            with pytest.raises(
                UserError, match=f"of {n} prompts, where .* may be missing: .*status 4"
            ):
                complete(questions(n), model, number)
            bad.clear()  # the server has been put right
            assert complete(questions(n), model, number) == [i**2 for i in range(n)]
        else:
            expected = [None if i < refused else i**2 for i in range(n)]
            assert complete(questions(n), model, number) == expected
            assert complete(questions(n), model, number) == expected
            assert len(server.requests) == n


def test_when_every_prompt_is_refused_few_are_asked(endpoint):
    with ChatServer(lambda request: Fault(400)) as server, pytest.raises(UserError, match="400"):
        complete(questions(1000), endpoint(server, concurrency=2), number)
    assert len(server.requests) < 20


CUT = ("length", "4 is what I wou")


def test_a_reply_that_was_cut_is_asked_for_again_with_more_room(endpoint):
    def reply(request):
        return ("stop", "a pear tree") if request["max_tokens"] > 100 else ("length", "a pear tr")

    with ChatServer(reply) as server:
        assert complete(["a"], endpoint(server), str) == ["a pear tree"]
        assert complete(["a"], endpoint(server), str) == ["a pear tree"]
    assert [request["max_tokens"] for request in server.requests] == [64, 256]


def test_a_cut_reply_is_usable_where_its_beginning_says_it(endpoint):
    first = lambda reply: int(reply[0])  # noqa: E731
    with ChatServer(lambda request: CUT) as server:
        assert complete(["a"], endpoint(server), first, whole=False) == [4]
        with pytest.raises(UserError, match="a higher max_tokens"):
            complete(["a"], endpoint(server), first)
    assert server.delivered == {"a": 5}  # the first one counts


def test_thoughts_are_no_answer(endpoint):
    replies = {
        "closed": "<think>Is it 3? Or 5?</think>\n\n4",
        "opened by the template": "Is it 3?</think>4",
        "another name": "<thinking>\n3\n</thinking> 4 ",
        "Magistral": "[THINK]Is it 3?[/THINK]\n4",
        "Kimi": "◁think▷3◁/think▷4",
        "Command": "<|START_THINKING|>3<|END_THINKING|>4",
        "Seed": "<seed:think>3</seed:think>4",
        "Bespoke": "<|begin_of_thought|>3<|end_of_thought|>\n\n4",
        "others": "<reasoning>3</reasoning>4",
        "twice": "<thought>3</thought><analysis>5</analysis>4",
        "gpt-oss": "<|channel|>analysis<|message|>3<|end|><|start|>assistant"
        "<|channel|>final<|message|>4",
    }
    with ChatServer(lambda request: replies[request["prompt"]]) as server:
        assert complete(list(replies), endpoint(server), number) == [4] * len(replies)
    for opened in ("<think>", "[THINK]", "<|channel|>analysis<|message|>", "</think>4<thought>"):
        with ChatServer(lambda request: ("length", f"{opened}It is 4 or")) as server:  # noqa: B023
            with pytest.raises(UserError, match="no usable reply"):
                complete([opened], endpoint(server), str, whole=False)


def test_a_model_that_wants_other_parameters_gets_them(endpoint):
    def reply(request):
        for name, other in (
            ("max_tokens", "Use 'max_completion_tokens' instead."),
            ("temperature", "Only the default is supported."),
        ):
            if name in request:
                said = f"Unsupported parameter: '{name}'. {other}"
                return Fault(400, body=json.dumps({"error": {"message": said, "param": name}}))
        return square(request)

    with ChatServer(reply) as server:
        assert complete(questions(5), endpoint(server, concurrency=1), number) == [0, 1, 4, 9, 16]
    assert server.delivered == dict.fromkeys(questions(5), 1) and len(server.requests) == 7
    sent = server.requests[-1]
    assert sent["max_completion_tokens"] == 64 and not {"max_tokens", "temperature"} & sent.keys()


def test_after_an_interrupt_nothing_is_asked_twice(endpoint, capsys):
    once = threading.Semaphore(
        1
    )  # four requests at a time: the tenth may be seen by several of them, or by none

    def reply(request):
        if len(server.requests) >= 10 and once.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.03 if len(server.requests) < 10 else 0.3)  # a busy machine is slow to notice
        return square(request)

    with ChatServer(reply) as server:
        with pytest.raises(KeyboardInterrupt):
            complete(questions(60), endpoint(server, concurrency=4), number)
        stopped_at = server.delivered.total()
        assert 10 <= stopped_at < 60
        assert f"model-x: {stopped_at} calls" in capsys.readouterr().out
        assert complete(questions(60), endpoint(server), number) == [i**2 for i in range(60)]
    assert server.delivered == dict.fromkeys(questions(60), 1)


def test_after_a_kill_nothing_is_asked_twice(endpoint, tmp_path):
    def reply(request):
        if len(server.requests) == 10:
            process.kill()
            process.wait()
            return Fault(reset=True)
        return square(request)

    with ChatServer(reply) as server:
        model = endpoint(server, concurrency=1)
        code = f"""
from pathlib import PosixPath
from introspect_utils.models.chat import Endpoint, complete
complete({questions(20)}, {model!r}, int)
"""
        environment = os.environ | {"PYTHONPATH": str(paths.REPO)}
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL
        )
        process.wait(timeout=120)
        assert process.returncode == -signal.SIGKILL and server.delivered.total() == 9
        assert complete(questions(20), model, number) == [i**2 for i in range(20)]
    assert server.delivered == dict.fromkeys(questions(20), 1)


@pytest.mark.parametrize("status", [401, 402, 404])
def test_a_refusal_is_not_repeated_and_costs_no_answer(endpoint, status):
    with ChatServer(
        lambda request: Fault(status) if request["prompt"] == "5" else square(request)
    ) as server:
        with pytest.raises(
            UserError,
            match=rf"model-x at {server.url} failed \(.*{status}.*answers so far are kept in .*cache",
        ):
            complete([str(i) for i in range(10)], endpoint(server, concurrency=1), number)
        assert len(server.times["5"]) == 1 and server.delivered.total() <= 7
        complete([str(i) for i in range(10) if i != 5], endpoint(server), number)
    assert server.delivered == {str(i): 1 for i in range(10) if i != 5}


def test_after_a_refusal_nothing_more_is_asked(endpoint):
    def reply(request):
        time.sleep(0.03)
        return Fault(401) if request["prompt"] == "5" else square(request)

    with ChatServer(reply) as server, pytest.raises(UserError, match="401"):
        complete([str(i) for i in range(60)], endpoint(server, concurrency=3), number)
    assert server.delivered.total() < 30


def test_a_broken_server_is_given_up(endpoint, monkeypatch):
    monkeypatch.setattr(chat, "MAX_RETRIES", 1)
    with (
        ChatServer(lambda request: Fault(500)) as server,
        pytest.raises(UserError, match="put it right and run this again"),
    ):
        complete(questions(3), endpoint(server, concurrency=1), number)
    assert len(server.requests) <= 4


@pytest.mark.parametrize(
    "fault",
    [
        Fault(body="<html>a page</html>"),
        Fault(body="<html>a page</html>", content_type="text/html"),
        Fault(body='{"error": {"message": "no such route"}}'),
    ],
)
def test_a_server_of_another_kind(endpoint, monkeypatch, fault):
    monkeypatch.setattr(chat, "WAIT", 0.001)
    with (
        ChatServer(lambda request: fault) as server,
        pytest.raises(UserError, match="no chat completion: check base_url"),
    ):
        complete(questions(3), endpoint(server, concurrency=1), number)
    assert len(server.requests) <= 2 * chat.ATTEMPTS  # it may be busy


def body(content, finish="stop", model="model-x"):
    """A reply as a server may word it."""
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "finish_reason": finish, "message": message}
    said = {"id": "1", "object": "chat.completion", "created": 0, "choices": [choice]}
    return Fault(body=json.dumps(said | ({"model": model} if model else {})))


@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize(
    "fault",
    [
        Fault(body='{"error": {"message": "upstream failed", "code": 502}}'),
        Fault(body='{"id": "x", "object": "chat.completion", "model": "model-x", "choices": []}'),
        Fault(body="<html>busy</html>", content_type="text/html"),
        Fault(body="<html>busy</html>"),
        Fault(body="null"),
    ],
)
def test_a_server_that_gives_no_completion_now_and_then(endpoint, monkeypatch, fault, passes):
    """Retried, and at last a missing answer: neither ends the run, nor the next."""
    monkeypatch.setattr(chat, "WAIT", 0.001)

    def reply(request):
        odd = request["prompt"] == questions(4)[3] and (not passes or request["nth"] < 3)
        return fault if odd else square(request)

    with ChatServer(reply) as server:
        for _ in range(2):
            found = complete(questions(4), endpoint(server, concurrency=1), number)
            assert found == [0, 1, 4, 9 if passes else None]
    assert len(server.requests) == 3 + (3 if passes else chat.ATTEMPTS)


@pytest.mark.parametrize("status", [403, 413, 451])
def test_a_prompt_that_is_refused_in_other_words(endpoint, status):
    def reply(request):
        return Fault(status) if request["prompt"] == questions(3)[1] else square(request)

    with ChatServer(reply) as server:
        for _ in range(2):
            assert complete(questions(3), endpoint(server), number) == [0, None, 4]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "finish",
    ["abort", "error", "SAFETY", "recitation", "cancelled", "tool_calls", "content_filter", "new"],
)
@pytest.mark.parametrize("whole", [True, False])
def test_a_reply_that_did_not_end_by_itself_is_unusable(endpoint, finish, whole):
    def reply(request):
        return (finish, "names of anim") if request["nth"] == 1 else "names of animals"

    with ChatServer(reply) as server:
        found = complete(["a"], endpoint(server), str, whole=whole)
    assert found == ["names of animals"]


@pytest.mark.parametrize("finish", ["stop", "STOP", "eos", "stop_sequence", "end_turn", None])
def test_a_reply_that_ended_by_itself_is_whole(endpoint, finish):
    with ChatServer(lambda request: body("names of animals", finish)) as server:
        assert complete(["a"], endpoint(server), str) == ["names of animals"]
    assert len(server.requests) == 1


@pytest.mark.parametrize("finish", ["MAX_TOKENS", "max_tokens", "model_length"])
def test_every_name_for_a_cut_asks_for_more_room(endpoint, finish):
    def reply(request):
        return "a pear tree" if request["max_tokens"] > 100 else (finish, "a pear tr")

    with ChatServer(reply) as server:
        assert complete(["a"], endpoint(server), str) == ["a pear tree"]
        assert complete(["b"], endpoint(server), str, whole=False) == ["a pear tr"]


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14"),
        ("gpt-4.1-mini", "openai/gpt-4.1-mini"),
        ("Qwen/Qwen3-8B", "qwen3-8b"),
        ("llama3", "llama3:latest"),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku-20241022"),
        ("gemini-1.5-pro", "models/gemini-1.5-pro-002"),
        ("deepseek/deepseek-r1:free", "deepseek/deepseek-r1"),
        ("m", ""),
    ],
)
def test_a_model_may_say_its_name_in_full(endpoint, asked, answered):
    with ChatServer(lambda request: body("7", model=answered)) as server:
        assert complete(["a"], replace(endpoint(server), model=asked), number) == [7]


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("gpt-4.1-mini", "qwen2.5-0.5b"),
        ("gpt-4.1", "gpt-4.1-mini"),
        ("gpt-4.1", "gpt-4.1-mini-2025-04-14"),
        ("llama-3", "llama-3-405b"),
        ("gpt-4.1-mini", "gpt-4.1"),
        ("gpt-4", "gpt-4o"),
    ],
)
def test_another_model_than_was_asked_is_an_error_and_not_kept(endpoint, asked, answered):
    with ChatServer(lambda request: body("7", model=answered)) as server:
        model = replace(endpoint(server), model=asked)
        with pytest.raises(UserError, match=f"asked for {asked}, and {answered} answered"):
            complete(["a"], model, number)
    assert n_cached(model.cache_folder) == 0


def test_who_answered_is_recorded(endpoint, monkeypatch):
    monkeypatch.setattr(chat, "ANSWERED", {})
    with ChatServer(lambda request: body("7", model="model-x-2025-04-14")) as server:
        model = endpoint(server)
        complete(["a", "b"], model, number)
    chat.ANSWERED.clear()
    complete(["a"], model, number)  # out of the cache
    assert chat.ANSWERED == {f"model-x at {server.url}": ["model-x-2025-04-14"]}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            [{"type": "text", "text": "names of "}, {"type": "text", "text": "cats"}],
            "names of cats",
        ),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "cats"}], "cats"),
        ("names \ud83d of", "names \ufffd of"),
        ("\ud83d\ude00", "\U0001f600"),
    ],
)
def test_contents_in_parts_and_halves_of_characters(endpoint, content, text):
    prompts = ["p\ud83d", "q"]
    with ChatServer(lambda request: body(content)) as server:
        for _ in range(2):
            assert complete(prompts, endpoint(server), str) == [text, text]
    assert len(server.requests) == 2


def test_no_server(endpoint, monkeypatch):
    monkeypatch.setattr(chat, "MAX_RETRIES", 1)
    with ChatServer(square) as server:
        pass
    with pytest.raises(UserError, match=r"failed \(Connection error"):
        complete(["1"], endpoint(server), number)


def test_no_key(endpoint):
    with pytest.raises(UserError, match="no key for model-x: set OPENAI_API_KEY, or base_url"):
        complete(["1"], endpoint(), number)


def test_the_key_is_sent_and_not_kept(endpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with ChatServer(square) as server:
        complete(["1"], endpoint(server), number)
    kept = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert kept and all(b"sk-secret" not in file.read_bytes() for file in kept)


def test_it_runs_in_a_notebook(endpoint):
    async def cell():  # code in a notebook runs inside an event loop
        return complete(["4"], endpoint(server), number)

    with ChatServer(square) as server:
        assert asyncio.run(cell()) == [16]


def test_nothing_to_ask():
    assert complete([], Endpoint("model-x"), number) == []


def test_a_damaged_cache_is_one_clear_error(endpoint):
    model = endpoint()
    model.cache_folder.mkdir()
    (model.cache_folder / "replies.sqlite").write_text("no data base " * 100)
    with pytest.raises(UserError, match="replies.sqlite is damaged .*: delete it"):
        complete(["1"], model, number)


def test_threads_and_processes_share_the_cache(tmp_path):
    with closing(Cache(tmp_path)) as one, closing(Cache(tmp_path)) as other:
        with ThreadPoolExecutor(8) as threads:
            for i in range(200):
                cache = (one, other)[i % 2]
                threads.submit(cache.write, Reply(str(i), 1), "m", "u", f"p{i}", 64, 0.0)
        for i in range(200):
            assert (other, one)[i % 2].read("m", "u", f"p{i}", 64, 0.0) == Reply(str(i), 1)
    assert [path.name for path in tmp_path.iterdir()] == ["replies.sqlite"]
