"""Somebody known who works on, whatever else comes to a city's doors."""
import http.client
import multiprocessing
import ssl
import time
import urllib.parse

# One connection in so many is a new one.
NEW = 10


class Door:
    """The HTTPS door, as somebody known."""

    def __init__(self, ready, who="app"):
        self.base, self.token = urllib.parse.urlsplit(ready["https"]), ready["tokens"][who]
        self.tls = ssl.create_default_context(cafile=ready["ca"])

    def connect(self):
        return http.client.HTTPSConnection(self.base.hostname, self.base.port, context=self.tls, timeout=30)

    def ask(self, connection, method="GET", path="/ngsi-ld/v1/entities?type=T&limit=1", body=None, kind="application/json"):
        connection.request(method, path, body, {"Authorization": "Bearer " + self.token, "Content-Type": kind})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, text


class Others:
    """Asks without pause in a process of its own, on a connection that it keeps and on new ones."""

    def __init__(self, door):
        self.door, self.phases = door, {}
        fork = multiprocessing.get_context("fork")
        self.stop, (self.told, tell) = fork.Event(), fork.Pipe(duplex=False)
        self.process = fork.Process(target=self.work, args=(tell,), daemon=True)
        self.process.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.process.join(5)

    def work(self, tell):
        kept, took = self.door.connect(), []
        while not self.stop.is_set():
            asked = self.door.connect() if len(took) % NEW == NEW - 1 else kept
            since = time.perf_counter()
            status, text = self.door.ask(asked)
            took.append((since, time.perf_counter() - since))
            assert status == 200, (status, text)
            if asked is not kept:
                asked.close()
            time.sleep(0.002)
        tell.send(took)

    def during(self, name, work):
        """What the work gives; how the other fares meanwhile is asked for in the end."""
        since = time.perf_counter()
        found = work()
        # So many answers that there is a hundredth of them.
        time.sleep(max(0.0, 2.0 - (time.perf_counter() - since)))
        self.phases[name] = since, time.perf_counter()
        return found

    def fared(self):
        """By phase: how long the 99th of a hundred answers took, and the longest, in ms, and how many there were."""
        assert self.process.is_alive(), "somebody known was not served"
        self.stop.set()
        took, phases = self.told.recv(), {}
        for name, (since, until) in self.phases.items():
            of = sorted(time for at, time in took if since <= at < until)
            assert len(of) >= 100, f"{name}: only {len(of)} were answered"
            phases[name] = {"p99_ms": of[int(len(of) * 0.99)] * 1000, "longest_ms": of[-1] * 1000, "asked": len(of)}
        return phases
