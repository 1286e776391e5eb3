"""Whoever means harm to a city: crowds of idle connections, heads and bodies that never end, bombs of depth, contexts,
patterns, heads and streams, bytes that are no MQTT. Each is cut at its limit, nothing answers 5xx, and somebody known
works on meanwhile, on a connection that he keeps and on new ones.

hostile.py READY_FILE CROWD   prints {"calm": {"p99_ms": ..., "longest_ms": ..., "asked": ...}, "crowd": {...}, "reached": ..., ...}
"""
import errno
import json
import multiprocessing
import random
import resource
import socket
import ssl
import sys
import threading
import time

from others import Door, Others

READY = json.load(open(sys.argv[1]))
CROWD = int(sys.argv[2])
DOOR, ADMIN = Door(READY), Door(READY, "admin")
BASE, TOKEN = DOOR.base, DOOR.token
MQTT = int(READY["mqtts"].rsplit(":", 1)[1])
TLS = DOOR.tls
TCP_SYN_SENT = 2
_, HANDLES = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (HANDLES, HANDLES))
# What one process of the crowd holds; a larger crowd takes several.
SHARE = min(HANDLES - 500, 15_000)


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


def crowd():
    fork = multiprocessing.get_context("fork")
    ready, leave, reached = fork.Semaphore(0), fork.Event(), fork.Value("i", 0)
    parts = [range(first, min(first + SHARE, CROWD)) for first in range(0, CROWD, SHARE)]
    processes = [fork.Process(target=strangers, args=(part, ready, leave, reached)) for part in parts]
    for process in processes:
        process.start()
        while not ready.acquire(timeout=0.1):
            assert process.is_alive(), "the crowd cannot be held"
    newcomers = 0
    for _ in range(20):
        newcomer = DOOR.connect()
        newcomers += DOOR.ask(newcomer)[0] == 200
        newcomer.close()
    leave.set()
    [process.join() for process in processes]
    return {"crowd": CROWD, "reached": reached.value, "newcomers": newcomers}


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


def bombs():
    """Things that are small to send and large to take in, each with the answer and the words that it is cut with."""
    create, kind, linked = "/ngsi-ld/v1/entities", "application/json", "application/ld+json"
    entity = {"id": "urn:x:1", "type": "T"}
    sent = [
        (create, "[" * 100_000 + "]" * 100_000, kind, 400, "more than 64 deep"),
        (create, json.dumps({**entity, **{f"a{n}": n for n in range(5_000)}}), kind, 400, "at most 1000 attributes"),
        (create, json.dumps({"@context": {f"t{n}": f"t{n + 1}:x" for n in range(9_000)}, **entity, "id": "urn:x:2"}), linked, 201, ""),
        (create, json.dumps({"@context": [{"a": "b:x", "b": "a:x"}] * 50, **entity, "id": "urn:x:3", "a": 1}), linked, 201, ""),
        (create, json.dumps({"@context": {f"t{n}": f"t{n + 1}:t{n + 1}:" for n in range(60)}, **entity, "id": "urn:x:4", "t0": 1}), linked, 201, ""),
        (create, '{"id":"urn:x:1","type":"T","n":' + "9" * 1_000_000 + "}", kind, 400, "number out of range"),
        ("/ngsi-ld/v1/entityOperations/upsert", "[" + ",".join(["{}"] * 200_000) + "]", kind, 413, "`batch` is limited"),
        ("/ngsi-ld/v1/entityOperations/query", json.dumps({"type": "Query", "q": "(" * 4_000}), kind, 400, "more than 16 deep"),
        ("/api/v1/acts", json.dumps({"act": "policies.put", "body": {"text": "(" * 200_000}}), kind, 400, ""),
    ]
    asked = [
        ("type=T&idPattern=" + "(a*)*" * 100 + "$", 200, ""),
        ("type=T&idPattern=" + "a{1000}" * 20, 400, "exceeds size limit"),
        ("type=T&q=a~=%22" + "(x%2Bx%2B)%2B" * 50 + "y%22", 200, ""),
        ("type=T&q=" + "!" * 4_000, 400, "at `?q`"),
        ("type=" + "(" * 4_000, 400, "at `?type`"),
        ("type=T&georel=within&geometry=Polygon&coordinates=" + "[" * 4_000, 400, "recursion limit"),
        ("type=T&orderBy=" + ",".join(["a"] * 2_000), 400, "more than 8 keys"),
        ("type=T&q=a==" + "1" * 17_000, 400, "longer than 16384 bytes"),
        ("&".join(f"p{n}=1" for n in range(1_000)), 400, "more than 64 parameters"),
    ]
    connection, worst, wrong = DOOR.connect(), 0.0, []
    for method, path, body, of_kind, *expected in [("POST", *bomb) for bomb in sent] + [
            ("GET", f"{create}?{query}", None, kind, *expected) for query, *expected in asked]:
        since = time.perf_counter()
        who = ADMIN if path == "/api/v1/acts" else DOOR
        status, text = who.ask(connection, method, path, body, of_kind)
        worst = max(worst, time.perf_counter() - since)
        if status != expected[0] or expected[1] not in text.decode():
            wrong.append((path[:80], (body or "")[:40], status, text[:200].decode(), expected))
    assert not wrong, "\n".join(map(str, wrong))
    return {"worst_bomb_s": worst}


def raw(first, more, alpn="http/1.1"):
    """Sends one thing, and another as often as it is taken; gives what came back, and how much was taken."""
    tls = ssl.create_default_context(cafile=READY["ca"])
    tls.set_alpn_protocols([alpn])
    back, taken = b"", 0
    with tls.wrap_socket(socket.create_connection((BASE.hostname, BASE.port), 30), server_hostname="localhost") as held:
        held.settimeout(0.001)
        until = time.time() + 60
        try:
            held.sendall(first)
            while time.time() < until:
                held.sendall(more)
                taken += len(more)
                try:
                    piece = held.recv(65_536)
                    if not piece:
                        break
                    back += piece
                except TimeoutError:
                    pass
        except OSError:
            pass
        assert time.time() < until, f"after {taken} bytes still not cut"
        try:
            held.settimeout(1)
            while piece := held.recv(65_536):
                back += piece
        except OSError:
            pass
    return back, taken


def frame(kind, flags, stream, payload=b""):
    """A frame of HTTP/2 (RFC 9113 clause 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def floods():
    """Heads, chunks and streams without end; all of them are cut, and none after much."""
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    back, taken = raw(head, b"".join(b"X-%d: y\r\n" % n for n in range(100)))
    assert b" 431 " in back[:20] or b" 400 " in back[:20], back[:200]
    found = {"heads_cut_after": taken}
    post = (f"POST /ngsi-ld/v1/entities HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n").encode()
    back, found["chunks_cut_after"] = raw(post, b"10000\r\n" + b" " * 65_536 + b"\r\n")
    assert b" 413 " in back[:20], back[:200]
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)
    # GET https /, by the static table, and an authority (RFC 7541).
    block = b"\x82\x87\x84\x41\x09localhost"
    # Streams that are opened and reset at once (CVE-2023-44487).
    resets = b"".join(frame(1, 5, 2 * n + 1, block) + frame(3, 0, 2 * n + 1, bytes(4)) for n in range(50_000))
    back, _ = raw(preface, resets, "h2")
    assert goaway(back), "streams may be reset without end"
    # A head that goes on and on (CVE-2024-27316).
    back, found["continued_cut_after"] = raw(preface + frame(1, 0, 1, block), frame(9, 0, 1, b"\x00\x01x" + bytes([127]) + b"y" * 127) * 50, "h2")
    assert goaway(back) or found["continued_cut_after"] < 1 << 20, "a head may go on without end"
    # Pings that nobody asked for, and settings.
    for name, one in [("pings", frame(6, 0, 0, bytes(8))), ("settings", frame(4, 0, 0))]:
        back, found[f"{name}_cut_after"] = raw(preface, one * 5_000, "h2")
    return found


def goaway(back):
    """Whether the other side of HTTP/2 said that it ends the connection, and why."""
    at = 0
    while at + 9 <= len(back):
        length, kind = int.from_bytes(back[at:at + 3], "big"), back[at + 3]
        if kind == 7:
            return True
        at += 9 + length
    return False


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
    found = {}
    with Others(DOOR) as others:
        others.during("calm", lambda: None)
        found |= others.during("crowd", crowd)
        found |= others.during("bombs", bombs)
        found |= others.during("floods", floods)
        found |= others.during("noise", lambda: mqtt_noise(max(200, CROWD // 50)))
        found |= others.during("slow", slow)
        assert DOOR.ask(DOOR.connect(), path="/readyz")[0] == 200
        found["others"] = others.fared()
    print(json.dumps(found))


main()
