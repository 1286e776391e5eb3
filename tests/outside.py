"""Tools nobody here wrote, against the release binary with its demo city: schemathesis over the API document with every
role, boofuzz on MQTT, slowhttptest on HTTPS. Ends with 1 and says why when something answers 5xx (but the 501 that the
standard names), ignores a credential, or leaves others unserved.

outside.py PROGRAM EXAMPLES [TOOL...]   (EXAMPLES: how many for each operation of the API; all tools unless named)
"""
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import ssl

PROGRAM, EXAMPLES = sys.argv[1], sys.argv[2]
TOOLS = pathlib.Path(sys.executable).parent
# Of boofuzz: each is a connection of its own.
CASES = 20 * int(EXAMPLES)
# Whoever is known is answered within this, whatever comes beside.
OTHERS_S = 1.0
ROLES = ["", "admin", "steward", "crisis", "auditor", "app", "device"]


class City:
    def __enter__(self):
        self.root = tempfile.TemporaryDirectory()
        ready = pathlib.Path(self.root.name) / "ready.json"
        config = pathlib.Path(self.root.name) / "city.toml"
        config.write_text("[limits]\nhttp_connections = 200\nhttp_head_timeout = 5\nhttp_body_timeout = 5\n")
        self.process = subprocess.Popen(
            [PROGRAM, "demo", "--devices", "20", "--listen", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--config", config,
             "--data", f"{self.root.name}/data", "--ready-file", ready], stdout=subprocess.DEVNULL)
        while not ready.exists():
            assert self.process.poll() is None, "the city ended"
            time.sleep(0.05)
        self.ready = json.loads(ready.read_text())
        self.tls = ssl.create_default_context(cafile=self.ready["ca"])
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.root.cleanup()

    def serves(self):
        """Whether somebody known is answered, and how soon in seconds."""
        since = time.perf_counter()
        ask = urllib.request.Request(self.ready["https"] + "/api/v1/session",
                                     headers={"Authorization": "Bearer " + self.ready["tokens"]["app"]})
        with urllib.request.urlopen(ask, context=self.tls, timeout=30) as answer:
            assert answer.status == 200
        return time.perf_counter() - since


def schemathesis(city):
    for role in ROLES:
        command = [TOOLS / "st", "run", city.ready["https"] + "/api/v1/openapi.json", "--checks",
                   "not_a_server_error,ignored_auth,response_schema_conformance", "--max-examples", EXAMPLES, "--tls-verify", city.ready["ca"],
                   "--phases", "coverage,fuzzing", "--exclude-by", '/summary == "Not offered"', "--no-color"]
        if role:
            command += ["--header", "Authorization: Bearer " + city.ready["tokens"][role]]
        output = subprocess.run(command, capture_output=True, text=True)
        lines = [line for line in output.stdout.splitlines() if "generated" in line or "Tested" in line]
        print(f"schemathesis as {role or 'nobody'}:", *(line.strip() for line in lines))
        if output.returncode != 0:
            raise SystemExit(output.stdout[-12000:])


def boofuzz(city):
    """CONNECT with a token that opens, and PUBLISH after one: each by itself, for either has more cases than are asked for."""
    from boofuzz import Block, Byte, Bytes, Request, Session, Size, SSLSocketConnection, Static, String, Target, Word
    port = int(city.ready["mqtts"].rsplit(":", 1)[1])
    os.chdir(city.root.name)
    token = city.ready["tokens"]["app"].encode()

    def body(*children):
        return Size("length", block_name="body", length=1), Block("body", children=children)

    def text(name, value):
        return Word(f"{name} length", len(value), endian=">"), String(name, value, max_len=100)

    connect = Request("connect", children=(Byte("kind", 0x10), *body(
        *text("protocol", "MQTT"), Byte("version", 5), Byte("flags", 0xC2), Word("keep alive", 60, endian=">"),
        Bytes("properties", b"\0", max_len=50), *text("id", "fuzz"), *text("user", "app"),
        Word("password length", len(token), endian=">"), Static("password", token))))
    opening = connect.render()
    with socket.create_connection(("127.0.0.1", port), 10) as plain:
        with city.tls.wrap_socket(plain, server_hostname="localhost") as known:
            known.sendall(opening)
            answer = known.recv(100)
            assert answer[0] == 0x20 and answer[3] == 0, f"a token that opens was answered {answer!r}"
    payload = json.dumps({"id": "urn:ngsi-ld:Fuzz:1", "type": "Fuzz", "n": 1})
    publish = Request("publish", children=(Byte("kind", 0x32), *body(
        *text("topic", "in/test"), Word("packet id", 1, endian=">"), Bytes("properties", b"\0", max_len=50),
        String("payload", payload, max_len=200))))
    for path in ([connect], [Request("opened", children=(Static("opening", opening),)), publish]):
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
        assert fuzzed >= CASES * 0.9, f"only {fuzzed} cases of {path[-1].name}"
        print(f"boofuzz: {fuzzed} cases of {path[-1].name}; others are answered in {city.serves():.3f} s")


def slowhttptest(city):
    for name, arguments in [("slow heads", ["-H"]), ("slow bodies", ["-B"]), ("slow reading", ["-X"])]:
        attack = subprocess.Popen(["slowhttptest", *arguments, "-c", "1000", "-r", "200", "-i", "1", "-l", "20", "-p", "3",
                                   "-u", city.ready["https"] + "/public/"], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        worst = 0.0
        while attack.poll() is None:
            worst = max(worst, city.serves())
            time.sleep(0.2)
        print(f"slowhttptest, {name}: others are answered within {worst:.3f} s")
        assert attack.returncode == 0, f"slowhttptest ended with {attack.returncode}"
        assert worst < OTHERS_S, f"{name} kept others waiting"


def main():
    tools = {tool.__name__: tool for tool in (schemathesis, boofuzz, slowhttptest)}
    with City() as city:
        for name in sys.argv[3:] or tools:
            tools[name](city)
        city.serves()
        assert city.process.poll() is None


main()
