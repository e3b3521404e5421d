"""The judge: what it is asked, how its answers are read, what is paid once; a server on loopback answers."""

import argparse
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nid_plugin.audit.judge import (
    VERDICT_TOKENS,
    JudgePrompt,
    judge_pairs,
    judging_estimate,
    read_prompt,
    sample,
    verdict,
)
from nid_plugin.completion.options import TeacherSettings, add_teacher_options, teacher_settings
from nid_plugin.pairs import Pair
from plugin_common.errors import UserError


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("VERDICT: YES", True),
        ("VERDICT: NO", False),
        ("  **Verdict: no.**\n", False),
        ("The text is a story.\n\nVERDICT: NO", False),
        ("**VERDICT**: NO!\r\n", False),
        ("> VERDICT:\nYES", True),
        ("VERDICT: YES\nVERDICT: YES", True),
        ("VERDICT: YES\nVERDICT: NO", None),
        ("YES", None),
        ("No, there is none.", None),
        ("VERDICT: YES, because it asks for a poem", None),
        ('I would answer "VERDICT: NO" if it were a story.', None),
        ("VERDICT: NOT SURE", None),
        ("", None),
    ],
)
def test_verdicts_are_read_strictly(answer: str, said: bool | None) -> None:
    assert verdict(answer) is said


def test_no_answer_takes_long() -> None:
    begun = time.process_time()
    for filling in (" ", "\n", "* ", "VERDICT:", "VERDICT: ", 'VERDICT: YES" '):
        assert verdict(filling * (50_000 // len(filling)) + "x") is None
    assert time.process_time() - begun < 3


def a_pair(prompt: str = "Once upon a time", completion: str = "there was a king.", number: int = 0) -> Pair:
    return Pair(f"{number:032x}", prompt, completion, "s", "t", "stop")


def test_the_pair_is_put_in_as_it_stands() -> None:
    prompt = JudgePrompt("own", "<{prompt}|{completion}> {other}")
    filled = prompt.fill(a_pair("a {completion} b", r"\1 {prompt}"))
    assert filled == r"<a {completion} b|\1 {prompt}> {other}"


def test_the_own_prompt_explains_both_verdicts_and_has_both_places() -> None:
    text = read_prompt(None).fill(a_pair("FIRST", "SECOND"))
    assert text.index("FIRST") < text.index("SECOND")
    assert '"VERDICT: YES"' in text and '"VERDICT: NO"' in text
    assert read_prompt(None).key != JudgePrompt("x", text).key


def test_a_prompt_without_the_places_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Is this good?", encoding="utf-8")
    with pytest.raises(UserError, match=r"lacks \{prompt\} and \{completion\}"):
        read_prompt(str(tmp_path / "prompt.txt"))
    with pytest.raises(UserError, match="cannot be read"):
        read_prompt(str(tmp_path / "none.txt"))


def test_samples() -> None:
    assert sample(10, 100, 1) == frozenset(range(10))
    assert len(sample(1000, 100, 1)) == 100
    assert sample(1000, 100, 1) == sample(1000, 100, 1) != sample(1000, 100, 2)


class Judge(ThreadingHTTPServer):
    """Says YES about pairs that mention a poem, NO about others; in doubt about kings."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Judge

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        self.server.asked.append(text)
        if "too long" in text:
            self._send(400, {"error": {"message": "too many tokens"}})
            return
        said = "Hard to say." if "king" in text else "VERDICT: YES" if "poem" in text else "VERDICT: NO"
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
        self._send(200, {"model": "j", "choices": [choice], "usage": usage})

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Judge]:
    with Judge() as judge:
        thread = threading.Thread(target=judge.serve_forever, daemon=True)
        thread.start()
        yield judge
        judge.shutdown()
        thread.join()


def teacher(server: Judge, *options: str) -> TeacherSettings:
    parser = argparse.ArgumentParser()
    add_teacher_options(parser)
    return teacher_settings(parser.parse_args(["--base-url", server.url, *options]), "j")


def write(path: Path, completions: list[str]) -> str:
    lines = [{"prompt": f"Text {i}.", "completion": text} for i, text in enumerate(completions)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


COMPLETIONS = [
    "Write a poem.",
    "It rained.",
    "The king died.",
    "It is too long.",
    "It snowed.",
    "Another poem, please.",
]


def test_a_sample_is_judged_and_paid_once(tmp_path: Path, server: Judge) -> None:
    path, ledger = write(tmp_path / "pairs.jsonl", COMPLETIONS), str(tmp_path / "ledger")
    chosen = frozenset({0, 1, 2, 3, 5})
    first = judge_pairs(path, chosen, read_prompt(None), teacher(server), ledger, 1)
    assert first.asked == 5
    assert first.verdicts == {0: True, 1: False, 5: True} and first.positive == 2
    assert first.unread == {"no clear verdict in the answer": 1, "not answered (http 400)": 1}
    assert len(server.asked) == 5 and not any("It snowed" in text for text in server.asked)
    again = judge_pairs(path, chosen, read_prompt(None), teacher(server), ledger, 1)
    assert again == first and len(server.asked) == 5
    more = judge_pairs(path, frozenset(range(6)), read_prompt(None), teacher(server), ledger, 1)
    assert more.verdicts == {**first.verdicts, 4: False} and len(server.asked) == 6


def test_equal_pairs_are_asked_once_and_both_judged(tmp_path: Path, server: Judge) -> None:
    record = json.dumps({"prompt": "Text.", "completion": "A poem."}) + "\n"
    (tmp_path / "pairs.jsonl").write_text(2 * record, encoding="utf-8")
    judged = judge_pairs(
        str(tmp_path / "pairs.jsonl"), frozenset({0, 1}), read_prompt(None), teacher(server), str(tmp_path / "l"), 1
    )
    assert judged.verdicts == {0: True, 1: True} and len(server.asked) == 1


def test_another_prompt_or_model_needs_another_ledger(tmp_path: Path, server: Judge) -> None:
    path, ledger = write(tmp_path / "pairs.jsonl", COMPLETIONS[:2]), str(tmp_path / "ledger")
    judge_pairs(path, frozenset({0}), read_prompt(None), teacher(server), ledger, 1)
    own = JudgePrompt("own", "{prompt} {completion}")
    with pytest.raises(UserError, match=r"(?s)made with other settings.*or another --judge-ledger"):
        judge_pairs(path, frozenset({0}), own, teacher(server), ledger, 1)
    with pytest.raises(UserError, match=r"(?s)made with other settings.*or another --judge-ledger"):
        judging_estimate(path, frozenset({0}), own, teacher(server), ledger)
    with pytest.raises(UserError, match="made with other settings"):
        judge_pairs(path, frozenset({0}), read_prompt(None), teacher(server, "--max-tokens", "5"), ledger, 1)


def test_an_estimate_counts_what_is_left_and_asks_nothing(tmp_path: Path, server: Judge) -> None:
    path, ledger = write(tmp_path / "pairs.jsonl", COMPLETIONS), tmp_path / "ledger"
    prompt = JudgePrompt("own", "{prompt}{completion}" + "x" * 400)
    asked = teacher(server, "--max-tokens", "50", "--price", "10", "30")
    before = judging_estimate(path, frozenset(range(6)), prompt, asked, str(ledger))
    texts = [f"Text {i}.{text}" + "x" * 400 for i, text in enumerate(COMPLETIONS)]
    assert (before.requests, before.most_answer_tokens) == (6, 300)
    assert before.prompt_tokens == sum(round(len(text) / 4) for text in texts)
    assert before.answer_tokens == 6 * VERDICT_TOKENS
    assert not server.asked and not ledger.exists()
    judge_pairs(path, frozenset({0, 3}), prompt, asked, str(ledger), 1)  # pair 3 is refused for good
    files = {file.name: file.read_bytes() for file in ledger.iterdir()}
    assert judging_estimate(path, frozenset(range(6)), prompt, asked, str(ledger)).requests == 4
    assert {file.name: file.read_bytes() for file in ledger.iterdir()} == files
    assert "if they are a verdict each" in "".join(before.lines(asked.price, asked.connection))
