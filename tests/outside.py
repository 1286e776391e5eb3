"""Tools nobody here wrote, against a program with its demo city: schemathesis over the API document with every role,
boofuzz on MQTT, slowhttptest on HTTPS. Ends with 1 and says why when something answers 5xx (but the 501 that the standard
names), ignores a credential, or keeps others waiting.

outside.py PROGRAM EXAMPLES [TOOL...]   (EXAMPLES: how many for each operation of the API; all tools unless named)
"""
import concurrent.futures
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

from others import Door, Others

PROGRAM, EXAMPLES = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
TOOLS = pathlib.Path(sys.executable).parent
# Of boofuzz: each is a connection of its own.
CASES = 50 * int(EXAMPLES)
# Whoever is known is answered within this, 99 times in a hundred, whatever comes beside.
OTHERS_P99_MS = 250.0
ROLES = ["", "admin", "steward", "crisis", "auditor", "department", "app", "device"]
# Chosen for a city that ends with this program.
PASSWORD = "kuda meja awan tujuh belas"


class City:
    """A city with these limits."""

    def __init__(self, limits):
        self.limits = limits

    def __enter__(self):
        self.root = tempfile.TemporaryDirectory()
        ready = pathlib.Path(self.root.name) / "ready.json"
        config = pathlib.Path(self.root.name) / "city.toml"
        config.write_text(f"[limits]\n{self.limits}")
        self.process = subprocess.Popen(
            [PROGRAM, "demo", "--devices", "20", "--listen", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--config", config,
             "--data", f"{self.root.name}/data", "--ready-file", ready], stdout=subprocess.DEVNULL)
        while not ready.exists():
            assert self.process.poll() is None, "the city ended"
            time.sleep(0.05)
        self.ready = json.loads(ready.read_text())
        self.door = Door(self.ready)
        self.tls = self.door.tls
        admin = Door(self.ready, "admin")
        body = {"kind": "official", "login": "social.1", "department": "social", "roles": ["department"]}
        code = self.done(admin, "/api/v1/acts", {"act": "principal.enrol", "body": body})["answer"]["code"]
        redeemed = self.done(admin, "/api/v1/redeem", {"code": code, "password": PASSWORD})
        self.ready["tokens"]["department"] = redeemed["token"]
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.root.cleanup()

    def done(self, door, path, body):
        status, text = door.ask(door.connect(), "POST", path, json.dumps(body))
        assert status in (200, 201), (path, status, text)
        return json.loads(text)


def schemathesis(city):
    def ask(role):
        command = [TOOLS / "st", "run", city.ready["https"] + "/api/v1/openapi.json", "--checks",
                   "not_a_server_error,ignored_auth,response_schema_conformance", "--max-examples", EXAMPLES, "--tls-verify", city.ready["ca"],
                   "--phases", "examples,coverage,fuzzing", "--exclude-by", '/summary == "Not offered"', "--no-color",
                   # A stream that does not end.
                   "--exclude-path", "/api/v1/watch"]
        if role:
            command += ["--header", "Authorization: Bearer " + city.ready["tokens"][role]]
        # What it keeps between runs goes with the city.
        folder = pathlib.Path(city.root.name) / f"as-{role or 'nobody'}"
        folder.mkdir()
        return role, subprocess.run(command, capture_output=True, text=True, cwd=folder)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for role, ended in pool.map(ask, ROLES):
            lines = [line for line in ended.stdout.splitlines() if "generated," in line]
            print(f"schemathesis as {role or 'nobody'}:", *(line.strip() for line in lines), flush=True)
            if ended.returncode != 0:
                raise SystemExit(ended.stdout[-12000:])


def boofuzz(city):
    """CONNECT with a token that opens, and PUBLISH after one: each by itself, for either has more cases than are asked for."""
    from boofuzz import Block, Byte, Bytes, Request, Session, Size, SSLSocketConnection, Static, String, Target, Word
    port = int(city.ready["mqtts"].rsplit(":", 1)[1])
    # It keeps what it found in a folder beside.
    os.chdir(city.root.name)
    token = city.ready["tokens"]["app"].encode()

    def body(*children):
        return Size("length", block_name="body", length=1), Block("body", children=children)

    def text(name, value):
        return Word(f"{name} length", len(value), endian=">"), String(name, value, max_len=100)

    def packet(name, kind, *children):
        return Request(name, children=(Byte("kind", kind), *body(*children)))

    def number(name="packet id", value=1):
        return Word(name, value, endian=">")

    none = Bytes("properties", b"\0", max_len=50)
    connect = packet("connect", 0x10, *text("protocol", "MQTT"), Byte("version", 5), Byte("flags", 0xC2), number("keep alive", 60),
                     none, *text("id", "fuzz"), *text("user", "app"), number("password length", len(token)),
                     Static("password", token))
    opening = connect.render()
    with socket.create_connection(("127.0.0.1", port), 10) as plain:
        with city.tls.wrap_socket(plain, server_hostname="localhost") as known:
            known.sendall(opening)
            answer = known.recv(100)
            assert answer[0] == 0x20 and answer[3] == 0, f"a token that opens was answered {answer!r}"
    payload = json.dumps({"id": "urn:ngsi-ld:Fuzz:1", "type": "Fuzz", "n": 1})
    packets = [
        packet("publish", 0x32, *text("topic", "in/test"), number(), none, String("payload", payload, max_len=200)),
        packet("publish once", 0x34, *text("topic", "in/test"), number(), none, String("payload", payload, max_len=200)),
        packet("puback", 0x40, number(), Byte("reason", 0), none),
        packet("pubrel", 0x62, number(), Byte("reason", 0), none),
        packet("subscribe", 0x82, number(), none, *text("filter", "out/test/#"), Byte("options", 1)),
        packet("unsubscribe", 0xA2, number(), none, *text("filter", "out/test/#")),
        packet("pingreq", 0xC0, Bytes("nothing", b"", max_len=50)),
        packet("auth", 0xF0, Byte("reason", 0x18), none),
        packet("disconnect", 0xE0, Byte("reason", 0), none),
    ]
    for path in ([connect], *([Request("opened", children=(Static("opening", opening),)), one] for one in packets)):
        connection = SSLSocketConnection("127.0.0.1", port, sslcontext=city.tls, server_hostname="localhost",
                                         recv_timeout=0.02, send_timeout=5)
        session = Session(target=Target(connection=connection), sleep_time=0, reuse_target_connection=False,
                          receive_data_after_fuzz=False, check_data_received_each_request=False,
                          ignore_connection_reset=True, ignore_connection_aborted=True,
                          ignore_connection_issues_when_sending_fuzz_data=True, web_port=None, index_end=CASES,
                          fuzz_loggers=[])
        [session.connect(*step) for step in zip([session.root, *path], path)]
        session.fuzz()
        fuzzed = session.num_cases_actually_fuzzed
        # A packet of few bytes has few cases.
        assert fuzzed >= min(CASES * 0.9, 50), f"only {fuzzed} cases of {path[-1].name}"
        print(f"boofuzz: {fuzzed} cases of {path[-1].name}")


def slowhttptest(city):
    # The largest document that anybody may have, ten times over.
    large = "/api/v1/openapi.json"
    for name, arguments in [("slow heads", ["-H"]), ("slow bodies", ["-B"]), ("slow reading", ["-X", "-w", "10", "-y", "20", "-n", "1", "-z", "32", "-k", "10"])]:
        attack = subprocess.run(["slowhttptest", *arguments, "-c", "1000", "-r", "1000", "-i", "1", "-l", "20", "-p", "3",
                                 "-u", city.ready["https"] + (large if "-X" in arguments else "/public/")],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert attack.returncode == 0, f"slowhttptest ended with {attack.returncode}"
        print(f"slowhttptest: {name}", flush=True)


# Each with the limits of its city.
SHORT = "http_connections = 200\nhttp_head_timeout = 5\nhttp_body_timeout = 5\n"
PROOFS = {schemathesis: "", boofuzz: "", slowhttptest: SHORT}


def main():
    named = sys.argv[3:]
    here = os.getcwd()
    for tool, limits in PROOFS.items():
        if named and tool.__name__ not in named:
            continue
        with City(limits) as city, Others(city.door) as others:
            others.during(tool.__name__, lambda: tool(city))
            os.chdir(here)
            assert city.process.poll() is None, "the city ended"
            fared = others.fared()[tool.__name__]
        print(f"{tool.__name__}: others were answered in {fared['p99_ms']:.1f} ms (p99 of {fared['asked']}), {fared['longest_ms']:.0f} ms at most", flush=True)
        assert fared["p99_ms"] < OTHERS_P99_MS, f"{tool.__name__} kept others waiting"


main()
