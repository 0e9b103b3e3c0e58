"""Webhooks as users judge them: the example in rules/, sent to by senders that sign as GitHub and others do.

`webhook_bodies/` holds what such senders send: compact and pretty, escaped and not, forms, huge numbers,
duplicate keys. Each is signed and posted to a real `serve`, twice, and must be there once, byte for byte.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from eventflow.event import decode_json
from eventflow.store.pool import Pool
from tests.acceptance.serving import Place, Served, fetch, until
from tests.http_sender import Answer, post

EXAMPLE = Path(__file__).parents[2] / "rules"
BODIES = Path(__file__).parent / "webhook_bodies"
GITHUB, STRIPE = "It's a Secret to Everybody", "whsec_0123456789abcdefghijklmnopqrstuv"
SHOP = "whsec_" + base64.b64encode(b"between the shop and us!").decode()
SECRETS = {"GITHUB_WEBHOOK_SECRET": GITHUB, "STRIPE_WEBHOOK_SECRET": STRIPE, "SHOP_WEBHOOK_SECRET": SHOP}


@dataclass(frozen=True)
class Request:
    """One signed request."""

    source: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    async def send(self, served: Served) -> Answer:
        return await post(served.port, f"/hooks/{self.source}", self.body, self.headers)


def by_github(name: str) -> Request:
    body = (BODIES / "github" / name).read_bytes()
    form = {"Content-Type": "application/x-www-form-urlencoded"} if name.endswith("form") else {}
    return github_request(f"delivery of {name}", name.partition(".")[0], body, **form)


def github_request(delivery: str, event: str, body: bytes, **more: str) -> Request:
    signature = hmac.new(GITHUB.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Event": event, "X-GitHub-Delivery": delivery,
               "X-Hub-Signature-256": f"sha256={signature}"}  # fmt: skip
    return Request("github", body, headers | more)


def by_stripe(name: str) -> Request:
    body = (BODIES / "stripe" / name).read_bytes()
    stamp = int(time.time())
    signature = hmac.new(STRIPE.encode(), b"%d.%s" % (stamp, body), hashlib.sha256).hexdigest()
    return Request("stripe", body, {"Stripe-Signature": f"t={stamp},v1={'0' * 64},v1={signature},v0=x"})


def by_standard(name: str, body: bytes, kind: str = "application/json", **more: str) -> Request:
    now, id_ = datetime.now(UTC), f"msg_{name}"
    headers = {"Content-Type": kind, "webhook-id": id_, "webhook-timestamp": str(int(now.timestamp())),
               "webhook-signature": "v1a,none " + Webhook(SHOP).sign(id_, now, body.decode())}  # fmt: skip
    return Request("storefront", body, headers | more)


def by_shop(name: str) -> Request:
    return by_standard(name, (BODIES / "standard" / name).read_bytes())


CE = "application/cloudevents"
KINDS = {"batch.json": f"{CE}-batch+json", "binary.json": "application/json"}
BINARY = {
    "ce-specversion": "1.0",
    "ce-id": "D7",
    "ce-type": "com.example.order.placed",
    "ce-source": "/kasse%202",
    "ce-subject": "o-18",
    "ce-time": "2026-04-05T19:31:00+02:00",
    "ce-traceparent": "00-0af7-b7ad-01",
}


def by_cloud(name: str) -> Request:
    more = BINARY if name == "binary.json" else {}
    body = (BODIES / "cloudevents" / name).read_bytes()
    return by_standard(name, body, KINDS.get(name, f"{CE}+json; charset=utf-8"), **more)


ALL = {"github": by_github, "stripe": by_stripe, "standard": by_shop, "cloudevents": by_cloud}


@pytest.fixture
def place(tmp_path: Path, database: str) -> Place:
    place = Place(tmp_path / "place", database, (EXAMPLE / "webhook.yaml").read_text())
    shutil.copy(EXAMPLE / "webhook_tasks.py", place.folder / "rules")
    return place


async def test_real_payloads_are_taken_in_once_and_unaltered(place: Place, pool: Pool) -> None:
    requests = [
        sign(path.name) for folder, sign in ALL.items() for path in sorted((BODIES / folder).iterdir())
    ]
    async with place.serve(settings=SECRETS) as served:
        first = await asyncio.gather(*(request.send(served) for request in requests))
        assert [answer.status for answer in first] == [202] * len(requests)
        again = await asyncio.gather(*(request.send(served) for request in requests))
        assert [answer.body for answer in again] == [answer.body for answer in first]
        await forgeries_are_refused(served, requests)

        async def ended() -> bool:
            return len(await fetch(pool, "SELECT id FROM run WHERE state = 'succeeded'")) == 6

        await until(ended, what="the runs that the payloads start")

    assert await fetch(pool, "SELECT id FROM dead_letter") == []
    stored = {bytes(row["data"]) for row in await fetch(pool, "SELECT data FROM event")}
    batch = (BODIES / "cloudevents" / "batch.json").read_bytes()
    members = {bytes(one) for one in stored if bytes(one) in batch}
    assert len(members) == 3
    assert stored - members == {request.body for request in requests} - {batch}
    (rows,) = await fetch(pool, "SELECT count(*) AS n FROM event")
    assert rows["n"] == len(requests) - 1 + len(members)
    await what_the_example_made_of_them(pool)


def large_push(commits: int) -> bytes:
    """The push of the corpus, with as many commits of a few files each as a large one has."""
    push = json.loads((BODIES / "github" / "push.json").read_bytes())
    message = "Ein längerer Text, wie er über einem Commit steht. 🚀\n\n" * 8
    push["commits"] = [
        {"id": f"{n:040x}", "message": message, "timestamp": "2026-05-15T15:20:33+02:00", "distinct": True,
         "author": {"name": "Ada Lovelace", "email": "ada@example.com", "username": "ada"},
         "added": [f"src/module_{n}/file_{k}.py" for k in range(8)], "removed": [],
         "modified": [f"docs/page_{n}_{k}.md" for k in range(8)]}
        for n in range(commits)
    ]  # fmt: skip
    return json.dumps(push, ensure_ascii=False).encode()


async def test_payloads_of_real_size_are_taken_in_whole(place: Place, pool: Pool) -> None:
    bodies = [large_push(commits) for commits in (20, 2_000, 18_500)]
    assert [len(body) >> 10 for body in bodies] == sorted(len(body) >> 10 for body in bodies)
    assert 20_000_000 < len(bodies[-1]) < 25_000_000
    requests = [github_request(f"large {n}", "push", body) for n, body in enumerate(bodies)]
    async with place.serve(settings=SECRETS) as served:
        assert [(await request.send(served)).status for request in requests] == [202] * 3
        assert (await requests[-1].send(served)).status == 202
    rows = await fetch(pool, "SELECT data FROM event WHERE source = 'github' ORDER BY id")
    assert [bytes(row["data"]) for row in rows] == bodies
    assert await fetch(pool, "SELECT id FROM dead_letter") == []


async def forgeries_are_refused(served: Served, requests: list[Request]) -> None:
    for request in requests:
        changed = Request(request.source, request.body + b" ", request.headers)
        assert (await changed.send(served)).status == 401
        unsigned = {n: v for n, v in request.headers.items() if "signature" not in n.lower()}
        assert (await Request(request.source, request.body, unsigned).send(served)).status == 401


async def what_the_example_made_of_them(pool: Pool) -> None:
    rows = await fetch(pool, "SELECT source, id, type, subject, attributes FROM event")
    types = {row["type"] for row in rows}
    assert {"github.push", "github.ping", "github.pull_request", "invoice.paid", "webhook.received",
            "com.example.order.placed", "com.example.order.cancelled"} <= types  # fmt: skip
    named = {row["id"]: (row["subject"], decode_json(row["attributes"])) for row in rows}
    assert named["delivery of push.json"][0] == "Codertocat/Hello-World"
    assert named["evt_3PXkBalance"][0] is None
    subject, attributes = named["D7"]
    assert (subject, attributes["sender"], attributes["time"]) == ("o-18", "/kasse 2", "2026-04-05T17:31:00Z")
    assert attributes["extensions"] == {"traceparent": "00-0af7-b7ad-01"}
    _, structured = named["A234-1234-1234"]
    assert structured["extensions"] == {
        "comexampleextension1": "value", "comexampleothervalue": 5, "sampled": True,
    }  # fmt: skip
    results = await fetch(pool, "SELECT result FROM task_run WHERE result IS NOT NULL ORDER BY task")
    texts = {row["result"].decode() for row in results}
    assert json.dumps("in_1PXkGX2eZvKYlo2C: 1999.00 EUR") in {
        text.partition(":")[2].strip("}") for text in texts
    }
    assert any('"Käse-250g"' in text for text in texts)


async def test_the_example_passes_its_own_cases(place: Place) -> None:
    shutil.copy(EXAMPLE / "webhook.test.yaml", place.folder / "rules" / "rules.test.yaml")
    code, out, err = await place.command("test", "rules")
    assert code == 0, out + err
    code, out, err = await place.command("check", "rules")
    assert (code, "warning" in out + err) == (0, False), out + err


async def test_an_old_request_is_refused_and_a_rotated_secret_counts(place: Place) -> None:
    rules = place.folder / "rules" / "rules.yaml"
    both = '"${secret.SHOP_WEBHOOK_SECRET}", "${secret.SHOP_OLD}"'
    rules.write_text(rules.read_text().replace('"${secret.SHOP_WEBHOOK_SECRET}"', both))
    old = "whsec_" + base64.b64encode(b"what was between us once").decode()
    async with place.serve(settings={**SECRETS, "SHOP_OLD": old}) as served:
        for seconds, key, status in ((-301, SHOP, 401), (301, SHOP, 401), (-200, SHOP, 202), (0, old, 202)):
            at = datetime.fromtimestamp(int(time.time()) + seconds, UTC)
            signature = Webhook(key).sign("msg_1", at, "{}")
            headers = {"webhook-id": "msg_1", "webhook-timestamp": str(int(at.timestamp())),
                       "webhook-signature": signature}  # fmt: skip
            assert (await Request("storefront", b"{}", headers).send(served)).status == status, seconds


SEEN = """
sources: {hook: {connector: webhook, verify: none, id: 'headers["x-n"]'}}
workflows: {see: {tasks: {see: {python: "steps:see"}}}}
rules: {each: {from: hook, run: see}}
"""


async def test_a_task_finds_the_data_that_its_rule_matched_whatever_form_it_came_in(
    tmp_path: Path, database: str, pool: Pool
) -> None:
    place = Place(tmp_path / "place", database, SEEN)
    (place.folder / "rules" / "steps.py").write_text(
        "def see(ctx):\n    return [ctx.event.id, ctx.event.data]\n"
    )
    event = {"specversion": "1.0", "id": "7", "source": "/s", "type": "t", "data": {"a": 1}}
    sent = {
        "form": ("application/x-www-form-urlencoded", b"a=1&b=2", {"a": "1", "b": "2"}),
        "text": ("text/plain", b"hello", "hello"),
        "cloudevent": ("application/cloudevents+json", json.dumps(event).encode(), {"a": 1}),
        "bytes": ("application/octet-stream", b"\xff\x00", "/wA="),
        "json": (
            "application/json",
            b'{"big": 123456789012345678901234567890}',
            {"big": 123456789012345678901234567890},
        ),
    }

    async def all_seen() -> bool:
        return len(await fetch(pool, "SELECT id FROM run WHERE ended IS NOT NULL")) == len(sent)

    async with place.serve() as served:
        for name, (kind, body, _) in sent.items():
            answer = await post(served.port, "/hooks/hook", body, {"Content-Type": kind, "X-N": name})
            assert answer.status == 202
        await until(all_seen, what="a run for each")
    results = await fetch(pool, "SELECT result FROM task_run WHERE result IS NOT NULL")
    assert dict(json.loads(row["result"]) for row in results) == {n: data for n, (_, _, data) in sent.items()}


async def test_a_webhook_is_paused_and_goes_on_by_command(place: Place, pool: Pool) -> None:
    async def status() -> int:
        return (await by_shop("list.json").send(served)).status

    async def states() -> dict[str, tuple[str, str]]:
        code, out, err = await place.command("sources", "--json")
        assert code == 0, err
        return {row["source"]: (row["state"], row["message"]) for row in json.loads(out)}

    async def refused() -> bool:
        return await status() == 503

    async def accepted() -> bool:
        return await status() == 202

    secrets = {name: value for name, value in SECRETS.items() if name != "STRIPE_WEBHOOK_SECRET"}
    async with place.serve(settings=secrets) as served:
        await until(accepted)
        found = await states()
        assert found["storefront"][0] == "running"
        assert found["stripe"][0] == "waiting"
        assert "STRIPE_WEBHOOK_SECRET" in found["stripe"][1]
        assert (await by_stripe("invoice.paid.json").send(served)).status == 503
        code, _, err = await place.command("sources", "pause", "storefront")
        assert code == 0, err
        await until(refused)
        assert (await states())["storefront"][0] == "paused"
        code, _, err = await place.command("sources", "resume", "storefront")
        assert code == 0, err
        await until(accepted)
    (rows,) = await fetch(pool, "SELECT count(*) AS n FROM event WHERE source = 'storefront'")
    assert rows["n"] == 1
