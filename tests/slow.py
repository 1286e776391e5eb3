"""Connections as a hostile or broken client holds them. Prints one JSON object a case.

usage: slow.py PORT CASE...; cases: handshake, head, body, hold=N, known=[N, TOKEN],
mqtt=[LOGIN, TOKEN, TIMES, PAYLOAD]
"""
import json
import socket
import ssl
import sys
import time


def connect(port, tls=True):
    plain = socket.create_connection(("127.0.0.1", port), timeout=30)
    if not tls:
        return plain
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain, server_hostname="localhost")


def until_closed(held):
    """What comes until the other side closes, and how long that took."""
    since, said = time.monotonic(), b""
    try:
        while part := held.recv(4096):
            said += part
    except OSError:
        pass
    return {"seconds": time.monotonic() - since, "said": said.decode(errors="replace")}


def answered(port):
    """Whether a request is answered within a second."""
    try:
        held = connect(port, tls=False)
        held.settimeout(1)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        held = context.wrap_socket(held, server_hostname="localhost")
        held.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return held.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False


def known(port, token):
    """A connection that has shown a credential."""
    held = connect(port)
    head = f"GET /api/v1/session HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    held.sendall(head.encode())
    assert held.recv(4096).startswith(b"HTTP/1.1 200")
    return held


def mqtt(port, login, token, times, payload):
    """Publishes over MQTT 3.1.1 at QoS 1: what becomes of the connection within three seconds."""

    def packet(kind, body):
        length, head = len(body), bytearray([kind])
        while True:
            length, low = length >> 7, length & 127
            head.append(low | (128 if length else 0))
            if not length:
                return bytes(head) + body

    def text(value):
        value = value.encode()
        return len(value).to_bytes(2, "big") + value

    held = connect(port)
    connect_body = text("MQTT") + bytes([4, 0xC2, 0, 60]) + text(login) + text(login) + text(token)
    held.sendall(packet(0x10, connect_body))
    assert held.recv(4) == bytes([0x20, 2, 0, 0])
    publish = b"".join(
        packet(0x32, text("in/rivers") + n.to_bytes(2, "big") + payload.encode())
        for n in range(1, times + 1)
    )
    held.settimeout(3)
    try:
        held.sendall(publish)
    except OSError:
        return {"seconds": 0, "said": ""}
    return until_closed(held)


def case(port, name):
    if name == "handshake":
        return until_closed(connect(port, tls=False))
    if name == "head":
        held = connect(port)
        held.sendall(b"GET /healthz HTTP/1.1\r\nHost: local")
        return until_closed(held)
    if name == "body":
        held = connect(port)
        head = b"POST /ngsi-ld/v1/entities HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
        held.sendall(head + b"Content-Type: application/json\r\nConnection: close\r\n\r\n{")
        return until_closed(held)
    if name.startswith("mqtt="):
        return mqtt(port, *json.loads(name.removeprefix("mqtt=")))
    if name.startswith("known="):
        count, token = json.loads(name.removeprefix("known="))
        held = [known(port, token) for _ in range(count)]
    else:
        held = [connect(port) for _ in range(int(name.removeprefix("hold=")))]
    full = answered(port)
    held.pop().close()
    time.sleep(0.2)
    return {"full": full, "after": answered(port)}


print(json.dumps([case(int(sys.argv[1]), name) for name in sys.argv[2:]]))
