"""Where the cases of `cases.py` are played: adapters at work, and what is expected of them."""

import json
import os
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager

# No call takes as long; a client that hangs is ended.
CALL_TIME_S = 120
CLOSE_TIME_S = 10
# How long a write may take to the other PoP, on a machine that is busy.
SOON_S = 20
POLL_INTERVAL_S = 0.05
# How much of a value is shown.
SHOWN_CHARS = 300


class Failed(Exception):
    """A case did not hold."""


class Ended(Exception):
    """An adapter is gone: no case can be played any more."""


class Lacking(Exception):
    """The client has no way to ask for this."""


class Refused(Exception):
    """The server, or the client itself, said no."""

    def __init__(self, status=None, code=None, message="", by_client=False):
        super().__init__(f"status {status}, code {code}{', by the client' * by_client}: {message}")
        self.status, self.code, self.by_client = status, code, by_client

    def is_like(self, other):
        """Whether this is the expected refusal, as far as the client tells."""
        told = [mine for mine in (self.status, self.code) if mine is not None]
        return bool(told) and self.status in (None, other.status) and self.code in (None, other.code)


class Client:
    """An adapter at work."""

    def __init__(self, command, base_url, token, auth="bearer"):
        own = {"BASE_URL": f"{base_url}/client/v4", "ACCOUNT": os.environ["ACCOUNT"], "TOKEN": token, "AUTH": auth}
        self.process = subprocess.Popen(
            command, env={**os.environ, **own}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        self.traits = self.answer("the first line")

    def call(self, name, **arguments):
        """The result of one call."""
        return self.outcome(self.calls(name, [arguments])[0])

    def calls(self, name, arguments_of_each):
        """The answers to calls that may be under way together. They are few and small: nobody reads meanwhile."""
        for arguments in arguments_of_each:
            self.process.stdin.write(json.dumps({"call": name, **arguments}) + "\n")
        self.process.stdin.flush()
        return [self.answer(name) for _ in arguments_of_each]

    def each(self, name, arguments_of_each):
        """The results of such calls; the first refusal is raised."""
        return [self.outcome(answer) for answer in self.calls(name, arguments_of_each)]

    def outcome(self, answer):
        if "lacks" in answer:
            raise Lacking(answer["lacks"])
        if "error" in answer:
            raise Refused(**answer["error"])
        return answer["result"]

    def answer(self, name):
        watchdog = threading.Timer(CALL_TIME_S, self.process.kill)
        watchdog.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise Ended(f"the adapter ended, or hung for {CALL_TIME_S} s, at: {name}")
        return json.loads(line)

    def close(self):
        try:
            self.process.communicate(timeout=CLOSE_TIME_S)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()


class Stage:
    """What a case plays on: a client at the PoP that is written to, and one at the PoP that is read from."""

    def __init__(self, command):
        self.command = command
        # A word a line.
        reader = os.environ.get("READER", "").splitlines() or command
        self.write_url, self.read_url = os.environ["WRITE_URL"], os.environ["READ_URL"]
        self.clients = []
        self.writer = self.client(self.write_url, os.environ["TOKEN"])
        self.reader = self.client(self.read_url, os.environ["TOKEN"], command=reader)
        self.traits = self.writer.traits
        self.titles = 0
        self.namespace = self.writer.call("create_namespace", title=self.title())["id"]

    def client(self, base_url, token, auth="bearer", command=None):
        client = Client(command or self.command, base_url, token, auth)
        self.clients.append(client)
        return client

    def token(self, scopes):
        """A new one at the PoP that is written to, with these scopes."""
        request = urllib.request.Request(
            f"{self.write_url}/v1/accounts/{os.environ['ACCOUNT']}/tokens",
            data=json.dumps({"name": self.title(), "scopes": scopes}).encode(),
            headers={"Authorization": f"Bearer {os.environ['TOKEN']}"},
        )
        # Whatever proxy the environment names, it is not for this machine.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=CALL_TIME_S) as answer:
            return json.load(answer)["token"]

    def title(self):
        """One that no other suite, and no run before, has used."""
        self.titles += 1
        return f"{self.traits['client']} {os.getpid()} {time.time_ns()} ü{self.titles}"

    def few(self, items, count):
        """The first ones for a client that is slow."""
        return items[:count] if self.traits.get("is_slow") else items

    @contextmanager
    def in_namespace(self, title):
        """A new one, for a while."""
        outer, self.namespace = self.namespace, self.writer.call("create_namespace", title=title)["id"]
        try:
            yield
        finally:
            self.namespace = outer

    def soon(self, ask, expected):
        """Whether the reader gets what is expected: a value, or a `Refused`."""
        patience_s = 0 if self.read_url == self.write_url else SOON_S
        deadline = time.monotonic() + patience_s
        while True:
            found = outcome_of(ask)
            if same(found, expected):
                return
            if time.monotonic() >= deadline:
                raise Failed(f"found {shown(found)}, expected {shown(expected)}")
            time.sleep(POLL_INTERVAL_S)

    def close(self):
        for client in self.clients:
            client.close()


def outcome_of(ask):
    try:
        return ask()
    except Refused as refused:
        return refused


def same(found, expected):
    if isinstance(expected, Refused):
        return isinstance(found, Refused) and found.is_like(expected)
    return found == expected


def shown(value):
    text = str(value) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}... ({len(text)} characters)"


def check(found, expected, what=""):
    """Fails the case where these differ."""
    if not same(found, expected):
        raise Failed(f"{what}{': ' * bool(what)}found {shown(found)}, expected {shown(expected)}")


def check_refused(ask, status, code, or_by_client=False):
    """Fails the case where the server does not refuse this, so, and the client does not either where it may."""
    found = outcome_of(ask)
    if not (or_by_client and isinstance(found, Refused) and found.by_client):
        check(found, Refused(status, code))
