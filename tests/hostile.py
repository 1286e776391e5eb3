"""Whoever means harm to a city: crowds of idle connections, heads and bodies that never end, bombs of depth,
contexts and patterns, bytes that are no MQTT. Others are served meanwhile, and nothing answers 5xx.

hostile.py READY_FILE CROWD   prints {"crowd": N, "calm_p99_ms": ..., "crowd_p99_ms": ..., "newcomers": ..., ...}
"""
import errno
import http.client
import json
import multiprocessing
import random
import resource
import socket
import ssl
import sys
import threading
import time
import urllib.parse

READY = json.load(open(sys.argv[1]))
CROWD = int(sys.argv[2])
BASE = urllib.parse.urlsplit(READY["https"])
MQTT = int(READY["mqtts"].rsplit(":", 1)[1])
TLS = ssl.create_default_context(cafile=READY["ca"])
TOKEN = READY["tokens"]["app"]
TCP_SYN_SENT = 2
_, HANDLES = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (HANDLES, HANDLES))
# What one process of the crowd holds; a larger crowd takes several.
SHARE = min(HANDLES - 500, 15_000)


def ask(connection, method="GET", path="/ngsi-ld/v1/entities?type=T&limit=1", body=None, kind="application/json"):
    connection.request(method, path, body, {"Authorization": "Bearer " + TOKEN, "Content-Type": kind})
    answer = connection.getresponse()
    text = answer.read()
    return answer.status, text


def connect():
    return http.client.HTTPSConnection(BASE.hostname, BASE.port, context=TLS, timeout=30)


def answers(connection, count):
    """How long each of so many answers takes, in seconds."""
    took = []
    for _ in range(count):
        since = time.perf_counter()
        status, text = ask(connection)
        assert status == 200, (status, text)
        took.append(time.perf_counter() - since)
    return took


def p99_ms(took):
    return sorted(took)[int(len(took) * 0.99)] * 1000


def strangers(numbers, ready, leave, reached):
    """Some of the crowd: they connect and say nothing, half of them to each door."""
    held = []
    for n in numbers:
        stranger = socket.socket()
        # More source addresses than one has ports for.
        stranger.bind((f"127.0.0.{2 + n // 20_000}", 0))
        stranger.setblocking(False)
        knocked = stranger.connect_ex(("127.0.0.1", BASE.port if n % 2 else MQTT))
        assert knocked in (0, errno.EINPROGRESS), errno.errorcode[knocked]
        held.append(stranger)
    knocking, until = held, time.time() + 30
    while knocking and time.time() < until:
        # Not yet let in, or sent away again (tcp_info's first byte: the state).
        knocking = [s for s in knocking if s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_SYN_SENT]
        time.sleep(0.1)
    with reached.get_lock():
        reached.value += len(held) - len(knocking)
    ready.release()
    leave.wait()


def crowd(known):
    fork = multiprocessing.get_context("fork")
    ready, leave, reached = fork.Semaphore(0), fork.Event(), fork.Value("i", 0)
    parts = [range(first, min(first + SHARE, CROWD)) for first in range(0, CROWD, SHARE)]
    processes = [fork.Process(target=strangers, args=(part, ready, leave, reached)) for part in parts]
    during = []
    for process in processes:
        process.start()
        while not ready.acquire(timeout=0.1):
            assert process.is_alive(), "the crowd cannot be held"
            during += answers(known, 100)
    during += answers(known, 300)
    newcomers = 0
    for _ in range(20):
        newcomer = connect()
        newcomers += ask(newcomer)[0] == 200
        newcomer.close()
    leave.set()
    [process.join() for process in processes]
    return {"crowd_p99_ms": p99_ms(during), "crowd_longest_ms": max(during) * 1000, "newcomers": newcomers, "reached": reached.value}


def slow():
    """Heads and bodies that come a byte at a time, until they are cut."""
    ended = []

    def one(first):
        try:
            with TLS.wrap_socket(socket.create_connection((BASE.hostname, BASE.port), 30), server_hostname="localhost") as held:
                held.sendall(first)
                since = time.perf_counter()
                held.settimeout(0.5)
                while time.perf_counter() - since < 60:
                    try:
                        held.sendall(b"x")
                        if held.recv(4096) == b"":
                            break
                    except TimeoutError:
                        continue
        except OSError:
            pass
        ended.append(time.perf_counter() - since)

    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: "
    body = (f"POST /ngsi-ld/v1/entities HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{").encode()
    threads = [threading.Thread(target=one, args=(first,)) for first in [head, body] * 20]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return {"slow_cut_after_s": max(ended)}


def bombs(known):
    """Things that are small to send and large to take in."""
    deep = "[" * 100_000 + "]" * 100_000
    wide = {"id": "urn:x:1", "type": "T", **{f"a{n}": n for n in range(5_000)}}
    nested = {"@context": {f"t{n}": f"t{n + 1}:x" for n in range(9_000)}, "id": "urn:x:1", "type": "T"}
    circle = {"@context": [{"a": "b:x", "b": "a:x"}] * 50, "id": "urn:x:1", "type": "T", "a": 1}
    doubling = {"@context": {f"t{n}": f"t{n + 1}:t{n + 1}:" for n in range(60)}, "id": "urn:x:1", "type": "T"}
    huge = '{"id":"urn:x:1","type":"T","n":' + "9" * 1_000_000 + "}"
    worst = 0.0
    for path, body, kind in [
        ("/ngsi-ld/v1/entities", deep, "application/json"),
        ("/ngsi-ld/v1/entities", json.dumps(wide), "application/json"),
        ("/ngsi-ld/v1/entities", json.dumps(nested), "application/ld+json"),
        ("/ngsi-ld/v1/entities", json.dumps(circle), "application/ld+json"),
        ("/ngsi-ld/v1/entities", json.dumps(doubling), "application/ld+json"),
        ("/ngsi-ld/v1/entities", huge, "application/json"),
        ("/ngsi-ld/v1/entityOperations/upsert", "[" + ",".join(["{}"] * 200_000) + "]", "application/json"),
        ("/ngsi-ld/v1/entityOperations/query", json.dumps({"type": "Query", "q": "(" * 4_000}), "application/json"),
        ("/api/v1/acts", json.dumps({"act": "policies.put", "body": {"text": "(" * 200_000}}), "application/json"),
    ]:
        since = time.perf_counter()
        status, text = ask(known, "POST", path, body, kind)
        worst = max(worst, time.perf_counter() - since)
        assert status < 500, (path, status, text[:300])
    for query in [
        "type=T&idPattern=" + "(a*)*" * 100 + "$",
        "type=T&idPattern=" + "a{1000}" * 20,
        "type=T&q=a~=%22" + "(x%2Bx%2B)%2B" * 50 + "y%22",
        "type=T&q=" + "!" * 4_000,
        "type=" + "(" * 4_000,
        "type=T&georel=within&geometry=Polygon&coordinates=" + "[" * 4_000,
        "type=T&orderBy=" + ",".join(["a"] * 2_000),
    ]:
        since = time.perf_counter()
        status, text = ask(known, path="/ngsi-ld/v1/entities?" + query)
        worst = max(worst, time.perf_counter() - since)
        assert status < 500, (query[:60], status, text[:300])
    return {"worst_bomb_s": worst}


def mqtt_noise(rounds):
    """Packets that nearly are some, and bytes that are none; each on a connection of its own."""
    dice = random.Random(7)
    connect_packet = bytes.fromhex("101000044d5154540502003c000004") + b"test"
    publish = b"\x32\x12\x00\x09in/rivers\x00\x01\x00{}"
    for _ in range(rounds):
        data = bytearray(dice.choice([connect_packet, publish, connect_packet + publish, bytes(64)]))
        for _ in range(dice.randrange(8)):
            at = dice.randrange(len(data))
            data[at:at + dice.randrange(3)] = bytes(dice.randrange(256) for _ in range(dice.randrange(4)))
            data = data or bytearray(1)
        try:
            with TLS.wrap_socket(socket.create_connection(("127.0.0.1", MQTT), 10), server_hostname="localhost") as held:
                held.sendall(bytes(data))
                held.settimeout(0.02)
                held.recv(100)
        except OSError:
            pass
    return {"mqtt_noise": rounds}


def main():
    known = connect()
    found = {"crowd": CROWD, "calm_p99_ms": p99_ms(answers(known, 300))}
    found |= crowd(known)
    found |= bombs(connect())
    found |= mqtt_noise(max(200, CROWD // 50))
    found |= slow()
    assert ask(connect(), path="/readyz")[0] == 200
    print(json.dumps(found))


main()
