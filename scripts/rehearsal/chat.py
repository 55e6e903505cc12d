"""An OpenAI-compatible chat server on loopback that describes and judges at random, and behaves as
badly as real ones do: it is busy (429), fails (500), refuses (400), cuts replies short, thinks
aloud, and says a sentence before the answer."""

import hashlib
import json
import threading
from collections import Counter

from loopback import Answers, Server

WORDS = ["rivers", "dates of birth", "verbs of motion", "names of cities", "music", "commas"]


class Chat(Server):
    """The server; `said` counts what it did."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(Handler, port)
        self.url += "/v1"
        self.said, self.asked, self.lock = Counter(), Counter(), threading.Lock()
        self.refused = {}  # prompt -> how many were new before it


class Handler(Answers):
    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt, self.model = request["messages"][-1]["content"], request.get("model", "")
        number = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big")
        with self.server.lock:
            self.server.asked[prompt] += 1
            first = self.server.asked[prompt] == 1
            new = len(self.server.asked)
            # not soon after another: callers accept one of 100 without a reply
            if (
                first
                and number % 151 == 0
                and new - max(self.server.refused.values(), default=0) > 100
            ):
                self.server.refused[prompt] = new
        if prompt in self.server.refused:
            return self.fail("refused", 400)
        if first and number % 7 == 0:
            return self.fail("busy", 429, {"Retry-After": "0.1"})
        if first and number % 31 == 0:
            return self.fail("failed", 500)
        judged = "rating" in prompt.lower() or "similar" in prompt.lower()
        text = str(1 + number % 5) if judged else WORDS[number % len(WORDS)]
        if first and number % 13 == 0:
            return self.reply("cut short", f"<think>It may be that {text}", "length")
        kinds = ("plain", "in bold", "with a sentence", "thinking")
        forms = ("{}", "**{}**", "Sure! Here is my answer:\n{}", "<think>{} perhaps.</think>\n{}")
        kind = number % 4 if not judged else number % 2
        return self.reply(kinds[kind], forms[kind].replace("{}", text), "stop")

    def reply(self, what: str, text: str, finish: str) -> None:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 100, "completion_tokens": len(text.split()), "total_tokens": 110}
        body = {"id": "1", "object": "chat.completion", "created": 0, "model": self.model}
        self.say(
            what, 200, body | {"choices": [choice | {"finish_reason": finish}], "usage": usage}
        )

    def fail(self, what: str, status: int, headers: dict | None = None) -> None:
        self.say(what, status, {"error": {"message": f"the stand-in is {what}"}}, headers)

    def say(self, what: str, status: int, body: dict, headers: dict | None = None) -> None:
        with self.server.lock:
            self.server.said[what] += 1
        self.send(status, json.dumps(body).encode(), "application/json", headers)
