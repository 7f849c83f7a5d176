#!/usr/bin/env python3
"""Attacks a node with slowhttptest, and reads and writes beside it all the while.

    slow.py ATTACK...        heads, bodies, ranges, reads, crowd

Finds URL, ACCOUNT, NAMESPACE, TOKEN and NODE, the node's process id, in its environment. Of each attack it asserts that
every answer beside it is right and came within a second, that the node's memory stays near where it was, that the node
itself has ended what the attack began, and that all connections are gone afterwards.

Prints a line for each attack; exit code 1 where one failed.
"""

import http.client
import os
import re
import subprocess
import sys
import time
from urllib.parse import urlsplit

ADDRESS = urlsplit(os.environ["URL"]).netloc
VALUES = f"/client/v4/accounts/{os.environ['ACCOUNT']}/storage/kv/namespaces/{os.environ['NAMESPACE']}/values"
BEARER = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
CONNECTIONS = 320
ATTACK_S = 14
LARGE_BYTES = 25 << 20
# What is promised to those beside an attack.
MAX_ANSWER_S = 1
MIN_ROUNDS_PER_S = 1
MAX_GROWTH_KB = 150 << 10
# How long connections may take to be gone once nobody holds them.
FREED_S = 10
# Between two rounds of the probe.
PAUSE_S = 0.2

# What slowhttptest is told, on which value, and which figure of the node shows that it has ended (or refused) how many.
# A cookie is the only header of its that all its requests have: a line break in it makes another header.
TOKEN_IN_COOKIE = ["-j", f"a=b\r\nAuthorization: {BEARER['Authorization']}"]
SLOW = 'littoral_http_connections_closed_total{reason="slow"}'
STALLED = 'littoral_http_connections_closed_total{reason="stalled"}'
CROWDED = 'littoral_http_connections_closed_total{reason="crowded"}'
REFUSED_PUTS = 'littoral_http_requests_total{route="put",status="4xx"}'
READS = 'littoral_http_requests_total{route="get",status="2xx"}'
ATTACKS = {
    "heads": (["-H", "-i", "2"], "small", SLOW, CONNECTIONS),
    "bodies": (["-B", "-i", "2", "-t", "PUT", "-s", "100000", *TOKEN_IN_COOKIE], "body", REFUSED_PUTS, CONNECTIONS),
    "ranges": (["-R", "-a", "1", "-b", "3000", "-t", "GET", *TOKEN_IN_COOKIE], "small", READS, CONNECTIONS),
    "reads": (["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", *TOKEN_IN_COOKIE], "large", STALLED, CONNECTIONS),
    # Of a node with 128 places.
    "crowd": (["-H", "-i", "2"], "small", CROWDED, CONNECTIONS - 128),
}


class Failed(Exception):
    """An attack has hurt somebody."""


class Probe:
    """Somebody who uses the node during an attack, on one connection that stays and on a new one each time."""

    def __init__(self):
        self.stays = connect()
        self.rounds = 0
        self.slowest_s = 0

    def round(self):
        self.rounds += 1
        value = f"{self.rounds} {time.time_ns()}".encode()
        new = connect()
        for writer, reader in ((self.stays, new), (new, self.stays)):
            self.ask(writer, "PUT", "/probe", value)
            if (read := self.ask(reader, "GET", "/probe")) != value:
                raise Failed(f"read {read[:100]} and had written {value}")
        new.close()

    def ask(self, connection, method, path, body=None):
        start = time.monotonic()
        try:
            connection.request(method, VALUES + path, body, BEARER)
        except (http.client.HTTPException, ConnectionError):
            # It was idle, and its place was needed: clients begin anew.
            connection.close()
            connection.request(method, VALUES + path, body, BEARER)
        answer = connection.getresponse()
        bytes = answer.read()
        took_s = time.monotonic() - start
        self.slowest_s = max(self.slowest_s, took_s)
        if answer.status != 200:
            raise Failed(f"{method} {path}: {answer.status} {bytes[:300]}")
        if took_s > MAX_ANSWER_S:
            raise Failed(f"{method} {path} took {took_s:.2f} s")
        return bytes


def main():
    probe = Probe()
    probe.ask(probe.stays, "PUT", "/small", b"small")
    probe.ask(probe.stays, "PUT", "/large", os.urandom(LARGE_BYTES))
    failed = 0
    for name in sys.argv[1:]:
        try:
            print(f"  ok      {name}: {attack(*ATTACKS[name])}", flush=True)
        except (Failed, OSError, http.client.HTTPException) as error:
            failed += 1
            print(f"  FAILED  {name}: {type(error).__name__} {error}", flush=True)
    sys.exit(1 if failed else 0)


def attack(options, key, figure, least):
    """What was seen of one attack, in a line."""
    command = ["slowhttptest", *options, "-c", str(CONNECTIONS), "-r", str(CONNECTIONS // 2), "-l", str(ATTACK_S)]
    command += ["-p", str(MAX_ANSWER_S), "-u", f"{os.environ['URL']}{VALUES}/{key}"]
    before, start_kb, start = metrics(), resident_kb(), time.monotonic()
    probe, peak_kb, most_open = Probe(), start_kb, 0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace")
    try:
        while process.poll() is None and time.monotonic() < start + 2 * ATTACK_S:
            probe.round()
            peak_kb = max(peak_kb, resident_kb())
            most_open = max(most_open, metrics()["littoral_http_connections"])
            time.sleep(PAUSE_S)
    finally:
        process.kill()
        said = process.communicate()[0]
    took_s = time.monotonic() - start
    ended = int(metrics()[figure] - before.get(figure, 0))
    if re.search(r"service available:\W*(\x1b\[[0-9;]*m)?\s*NO", said):
        raise Failed("slowhttptest says that the service was not available")
    if probe.rounds < took_s * MIN_ROUNDS_PER_S:
        raise Failed(f"{probe.rounds} rounds beside it in {took_s:.0f} s")
    if ended < least:
        raise Failed(f"{figure} rose by {ended}, expected {least} at least: {said[-600:]}")
    if peak_kb > start_kb + MAX_GROWTH_KB:
        raise Failed(f"{(peak_kb - start_kb) >> 10} MiB more memory")
    freed_s = freed()
    probe.round()
    return (
        f"{probe.rounds} rounds beside it, the slowest answer {probe.slowest_s * 1000:.0f} ms, up to {most_open:.0f}"
        f" connections, {ended} ended, {(peak_kb - start_kb) / 1024:+.0f} MiB, all gone after {freed_s:.1f} s"
    )


def freed():
    """How long it takes until only our own connections are open."""
    start = time.monotonic()
    # This one, two probes', and that which asks.
    while (open_now := metrics()["littoral_http_connections"]) > 4:
        if time.monotonic() > start + FREED_S:
            raise Failed(f"{open_now:.0f} connections are open {FREED_S} s after it")
        time.sleep(PAUSE_S)
    return time.monotonic() - start


def connect():
    return http.client.HTTPConnection(ADDRESS, timeout=10 * MAX_ANSWER_S)


def metrics():
    connection = connect()
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line and line[0] != "#")}


def resident_kb():
    with open(f"/proc/{os.environ['NODE']}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


if __name__ == "__main__":
    main()
