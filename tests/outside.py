"""Tools nobody here wrote, against the release binary with its demo city: schemathesis over the API document with every
role, boofuzz on MQTT, slowhttptest on HTTPS. Ends with 1 and says why when something answers 5xx (but the 501 that the
standard names), ignores a credential, or leaves others unserved.

outside.py PROGRAM EXAMPLES [TOOL...]   (EXAMPLES: how many for each operation of the API; all tools unless named)
"""
import json
import os
import pathlib
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
    from boofuzz import Block, Byte, Bytes, Request, Session, Size, SSLSocketConnection, Static, String, Target, Word
    port = int(city.ready["mqtts"].rsplit(":", 1)[1])
    os.chdir(city.root.name)
    connection = SSLSocketConnection("127.0.0.1", port, sslcontext=city.tls, server_hostname="localhost",
                                     recv_timeout=0.02, send_timeout=5)
    session = Session(target=Target(connection=connection), sleep_time=0, reuse_target_connection=False,
                      receive_data_after_fuzz=False, check_data_received_each_request=False,
                      ignore_connection_reset=True, ignore_connection_aborted=True,
                      ignore_connection_issues_when_sending_fuzz_data=True, web_port=None, index_end=CASES,
                      fuzz_loggers=[])
    connect = Request("connect", children=(
        Byte("kind", 0x10), Size("length", block_name="body", length=1),
        Block("body", children=(
            Word("name length", 4, endian=">"), String("name", "MQTT", max_len=100), Byte("version", 5), Byte("flags", 0xC2),
            Word("keep alive", 60, endian=">"), Bytes("properties", b"\0", max_len=50),
            Word("id length", 4, endian=">"), String("id", "fuzz", max_len=100),
            Word("user length", 3, endian=">"), String("user", "app", max_len=100),
            Word("password length", 2, endian=">"), Static("password", b"pw"))),))
    publish = Request("publish", children=(
        Byte("kind", 0x32), Size("length", block_name="body", length=1),
        Block("body", children=(
            Word("topic length", 9, endian=">"), String("topic", "in/rivers", max_len=100),
            Word("packet id", 1, endian=">"), Bytes("properties", b"\0", max_len=50), String("payload", "{}", max_len=200))),))
    session.connect(connect)
    session.connect(connect, publish)
    session.fuzz()
    print(f"boofuzz: {session.num_cases_actually_fuzzed} cases; others are answered in {city.serves():.3f} s")


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


def main():
    tools = {tool.__name__: tool for tool in (schemathesis, boofuzz, slowhttptest)}
    with City() as city:
        for name in sys.argv[3:] or tools:
            tools[name](city)
        city.serves()
        assert city.process.poll() is None


main()
