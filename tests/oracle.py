"""Who may do what, said a second time: an oracle that shares nothing with the hub but its documentation.

It builds a small city through the front doors, then asks for every cell of person x purpose x dataset x
sensitivity x action, over HTTP, MQTT and subscriptions, and prints where the hub answers otherwise. Then it
changes datasets, policies and people while subscriptions run, and asks again. Of the policies each is taken away
once, and each once has no condition: it objects, or it would prove nothing.

oracle.py READY_FILE   prints {"cells": N, "by": {...}, "differences": [...]}
"""
import copy
import http.client
import http.server
import itertools
import json
import random
import ssl
import sys
import threading
import time
import urllib.parse

import paho.mqtt.client as mqtt

READY = json.load(open(sys.argv[1]))
BASE = urllib.parse.urlsplit(READY["https"])
TLS = ssl.create_default_context(cafile=READY["ca"])
PASSWORD = "kuda meja awan tujuh belas"
OPEN, INTERNAL, CONFIDENTIAL, PERSONAL, SPECIAL = LEVELS = range(5)
WORDS = ["open", "internal", "confidential", "personal", "special"]
PURPOSES = [None, "flood-response", "water-management", "social-care", "energy-saving"]

local = threading.local()
cells = {}
differences = []


def cell(door, where, expected, found):
    cells[door] = cells.get(door, 0) + 1
    if expected != found:
        differences.append({"door": door, "where": where, "expected": expected, "found": found})


def call(method, path, token=None, purpose=None, body=None, kind="application/json"):
    headers = {}
    if token:
        headers["Authorization"] = "Bearer " + token
    if purpose:
        headers["Tanggul-Purpose"] = purpose
    data = None
    if body is not None:
        data = json.dumps(body)
        headers["Content-Type"] = kind
    for attempt in (1, 2):
        try:
            if getattr(local, "connection", None) is None:
                local.connection = http.client.HTTPSConnection(BASE.hostname, BASE.port, context=TLS, timeout=60)
            local.connection.request(method, path, data, headers)
            answer = local.connection.getresponse()
            text = answer.read().decode()
            return answer.status, dict(answer.getheaders()), text
        except (http.client.HTTPException, OSError):
            local.connection = None
            if attempt == 2:
                raise


def must(answer, *wanted):
    if answer[0] not in wanted:
        raise SystemExit(f"setting up failed: {answer}")
    return json.loads(answer[2]) if answer[2] else None


def act(token, name, body):
    return call("POST", "/api/v1/acts", token, body={"act": name, "body": body})


# ---- the city that is asked about ---------------------------------------------------------------

class Person:
    def __init__(self, login, token, kind, department="", roles=(), datasets=(), streams=(), purposes=()):
        self.login, self.token, self.kind, self.department = login, token, kind, department
        self.roles, self.datasets, self.streams, self.purposes = set(roles), set(datasets), streams, set(purposes)
        self.revoked = False


def from_ready(login, kind, department, roles, datasets=(), streams=()):
    return Person(login, READY["tokens"][login], kind, department, roles, datasets, streams)


PEOPLE = {
    "": Person("", None, "public"),
    "admin": from_ready("admin", "official", "it", ["administrator"]),
    "steward": from_ready("steward", "official", "water", ["steward", "department"]),
    "crisis": from_ready("crisis", "official", "crisis", ["crisis"]),
    "auditor": from_ready("auditor", "official", "inspectorate", ["auditor"]),
    "app": from_ready("app", "app", "apps", ["app"], ["test"]),
    "device": from_ready("device", "device", "water", ["device"], ["rivers"], ["urn:ngsi-ld:FloodMonitoring:demo*"]),
}


def enrol(login, kind, department="", roles=(), datasets=(), streams=(), purposes=()):
    body = {"kind": kind, "login": login, "department": department, "roles": list(roles),
            "datasets": list(datasets), "streams": list(streams), "purposes": list(purposes)}
    code = must(act(PEOPLE["admin"].token, "principal.enrol", body), 200)["answer"]["code"]
    redeem = {"code": code}
    if kind == "official":
        redeem["password"] = PASSWORD
    token = must(call("POST", "/api/v1/redeem", body=redeem), 201)["token"]
    PEOPLE[login] = Person(login, token, kind, department, roles, datasets, streams, purposes)


def attribute(level, withheld):
    return {"name": f"a{level}{withheld if isinstance(withheld, str) else 'coarsen'}", "kind": "any",
            "sensitivity": WORDS[level], "withheld": withheld}


def dataset(id, department, published, purposes, life_safety=False, about_people=False):
    treatments = ["mask", "hide", {"coarsen": {"step": 10.0}}]
    return {"id": id, "title": id, "department": department, "steward": "o.steward", "claims": [{"type": id}],
            "attributes": [attribute(level, how) for level in LEVELS for how in treatments],
            "undeclared": "special", "purposes": purposes, "legal_basis": "a test", "life_safety": life_safety,
            "about_people": about_people, "publication": "open" if published else "withheld"}


DATASETS = {d["id"]: d for d in [
    dataset("published", "water", True, ["flood-response", "water-management"], life_safety=True),
    dataset("withheld", "social", False, ["social-care", "flood-response"]),
    dataset("purposeless", "water", False, []),
    dataset("people", "social", False, ["social-care"], about_people=True),
]}


def build():
    everything = list(DATASETS)
    for d in DATASETS.values():
        must(act(PEOPLE["admin"].token, "dataset.put", {"dataset": d}), 200)
    enrol("o.steward", "official", "it", ["steward"])
    enrol("water.official", "official", "water", ["department"])
    enrol("social.official", "official", "social", ["department"])
    enrol("bound.official", "official", "social", ["department"], purposes=["social-care"])
    enrol("water.nothing", "official", "water", [])
    enrol("water.crisis", "official", "water", ["department", "crisis"])
    enrol("water.auditor", "official", "water", ["department", "auditor"])
    enrol("social.steward", "official", "social", ["steward", "crisis"])
    enrol("o.app", "app", "apps", datasets=everything)
    enrol("part.app", "app", "water", datasets=["withheld"])
    enrol("o.device", "device", "water", datasets=["published"], streams=["urn:oracle:published:*"])
    enrol("odd.device", "device", "water", datasets=["withheld"], streams=["urn:oracle:other"])
    enrol("social.admin", "official", "social", ["administrator", "department"])
    for id in everything:
        put(id, 7)


def values(d, value):
    """Every attribute of an entity at once."""
    return {a["name"]: value for a in d["attributes"]}


def put(id, value, name="1"):
    entity = {"id": f"urn:oracle:{id}:{name}", "type": id, **values(DATASETS[id], value)}
    must(call("POST", "/ngsi-ld/v1/entityOperations/upsert", PEOPLE["o.app"].token, body=[entity]), 201, 204, 200)


# ---- what ought to be ---------------------------------------------------------------------------

GLIMPSES = True
# Whether a policy has come that lets no app of the water department write.
FORBIDS = False


def permitted(person, action, d, level, purpose):
    """The rules a city starts with, in the words of docs/acts.md and of the policies' titles."""
    if person.revoked:
        return False
    roles = person.roles
    may_declare = not person.purposes or purpose in person.purposes
    kept_for = bool(purpose) and may_declare and purpose in d["purposes"]
    official = person.kind == "official"
    looks = action in ("read", "aggregate")
    changes = action in ("write", "delete")
    own = person.department == d["department"]
    steward = "steward" in roles and d["steward"] == person.login
    # Auditors see records and no data; administrators see no confidential data.
    if "auditor" in roles and level >= INTERNAL and (looks or changes or action == "glimpse"):
        return False
    if "administrator" in roles and level >= CONFIDENTIAL and (looks or action == "glimpse"):
        return False
    if FORBIDS and action == "write" and person.kind == "app" and person.department == "water":
        return False
    if looks and level == OPEN and d["publication"] == "open" and person.kind not in ("app", "device"):
        return True
    if looks and official and level == OPEN:
        return True
    if looks and official and own and level <= INTERNAL:
        return True
    if (looks or changes) and "department" in roles and own and kept_for:
        return True
    if (looks or changes) and steward and kept_for:
        return True
    if action == "govern" and steward:
        return True
    if "crisis" in roles and kept_for and purpose == "flood-response":
        if looks or (action == "command" and d["life_safety"]):
            return True
    if "crisis" in roles and purpose == "flood-response" and may_declare and action == "command" and d["life_safety"]:
        return True
    if action == "glimpse" and GLIMPSES and official and "department" in roles and kept_for:
        return True
    if action == "audit" and "auditor" in roles:
        return True
    if action in ("govern", "command") and "administrator" in roles:
        return True
    if (looks or changes) and person.kind == "app" and d["id"] in person.datasets:
        return True
    return action == "write" and person.kind == "device" and d["id"] in person.datasets


def ceiling(d):
    used = [WORDS.index(a["sensitivity"]) for a in d["attributes"]]
    return max(used + [WORDS.index(d["undeclared"])])


def shown(person, d, purpose, value):
    """What is seen of an entity whose attributes all have one value; none where nothing is."""
    sights = {}
    for level in LEVELS:
        if permitted(person, "read", d, level, purpose):
            sights[level] = "clear"
        elif permitted(person, "glimpse", d, level, purpose):
            sights[level] = "glimpse"
    if not sights:
        return None
    seen = {}
    for a in d["attributes"]:
        sight = sights.get(WORDS.index(a["sensitivity"]))
        if sight == "clear":
            seen[a["name"]] = value
        elif sight == "glimpse" and a["withheld"] == "mask":
            seen[a["name"]] = "***"
        elif sight == "glimpse" and a["withheld"] != "hide":
            seen[a["name"]] = value // 10 * 10
    return seen


# ---- asking -------------------------------------------------------------------------------------

def plain(entity):
    return {k: v for k, v in entity.items() if k not in ("id", "type", "@context")}


def refused(person, d, status):
    """As DESIGN section 3 has it: nobody known is told to sign in, and of people not even who is there."""
    if person.revoked:
        return status == 401
    return status == (404 if d["about_people"] else 401 if person.token is None else 403)


# Values that nothing had before, and that are the greatest of no history.
FRESH = itertools.count(-1, -1)


def held(id, name):
    """What an attribute is, as somebody sees who may see all; none when the entity is not there."""
    status, _, text = call("GET", f"/ngsi-ld/v1/entities/{id}?options=keyValues", PEOPLE["o.app"].token)
    return json.loads(text)[name] if status == 200 else None


def ask_reads(person, d, purpose, value):
    where = [person.login, purpose, d["id"]]
    expected = shown(person, d, purpose, value)
    id = f"urn:oracle:{d['id']}:1"
    status, _, text = call("GET", f"/ngsi-ld/v1/entities/{id}?options=keyValues", person.token, purpose)
    if expected is None:
        cell("http", where + ["retrieve"], True, refused(person, d, status))
        if d["about_people"]:
            # Who is on a list cannot be told from who is not.
            ask_absence(person, d, purpose, where)
    else:
        cell("http", where + ["retrieve"], (200, expected), (status, plain(json.loads(text)) if status == 200 else text))
    path = f"/ngsi-ld/v1/entities?type={d['id']}&options=keyValues&count=true"
    status, headers, text = call("GET", path, person.token, purpose)
    if expected is None:
        # That there is such a list is no secret.
        cell("http", where + ["query"], True, refused(person, dict(d, about_people=False), status) or (status, text) == (200, "[]"))
    else:
        found = [plain(e) for e in json.loads(text)] if status == 200 else text
        cell("http", where + ["query"], (200, [expected], "1"), (status, found, headers.get("ngsild-results-count")))
    status, _, text = call("GET", f"/ngsi-ld/v1/temporal/entities/{id}?options=temporalValues", person.token, purpose)
    if expected is None:
        cell("http", where + ["history"], True, refused(person, d, status))
    else:
        found = json.loads(text) if status == 200 else {}
        last = {k: v["values"][-1][0] for k, v in plain(found).items()}
        cell("http", where + ["history"], (200, expected), (status, last))
    # Sums are of what is shown as it is, and of nothing that is only glimpsed.
    path = f"/ngsi-ld/v1/temporal/entities/{id}?options=aggregatedValues&aggrMethods=max&aggrPeriodDuration=PT0S"
    status, _, text = call("GET", path, person.token, purpose)
    if expected is None:
        cell("http", where + ["sums"], True, refused(person, d, status))
    else:
        found = json.loads(text) if status == 200 else text
        found = {k: v["max"][0][0] for k, v in plain(found).items()} if status == 200 else found
        sums = {a["name"]: value for a in d["attributes"]
                if permitted(person, "aggregate", d, WORDS.index(a["sensitivity"]), purpose)}
        cell("http", where + ["sums"], (200, sums), (status, found))
    # Each attribute by itself, by value: what is withheld is never found by what it is.
    for a in d["attributes"]:
        seen = None if expected is None else expected.get(a["name"])
        path = f"/ngsi-ld/v1/entities?type={d['id']}&q={a['name']}=={value}&count=true&limit=0"
        status, headers, text = call("GET", path, person.token, purpose)
        matches = int(headers.get("ngsild-results-count", 0)) if status == 200 else 0
        cell("http", where + ["q", a["name"]], int(seen == value), matches)


def ask_absence(person, d, purpose, where):
    """Every way to ask for one entity answers for one that is there as for one that is not."""
    there, absent = f"urn:oracle:{d['id']}:1", f"urn:oracle:{d['id']}:0"
    name = d["attributes"][0]["name"]
    ways = [("GET", "entities/{}", None), ("GET", "temporal/entities/{}", None), ("DELETE", "entities/{}", None),
            ("PATCH", "entities/{}", {name: 1}), ("PATCH", "entities/{}/attrs", {name: 1}),
            ("POST", "entities/{}/attrs", {name: 1}), ("DELETE", "entities/{}/attrs/" + name, None),
            ("PATCH", "entities/{}/attrs/" + name, {"value": 1}), ("GET", "entities?id={}", None),
            ("GET", "entities?id={}&count=true&limit=0", None), ("GET", "temporal/entities?id={}&type=" + d["id"], None),
            ("DELETE", "temporal/entities/{}", None)]
    for method, path, body in ways:
        answers = []
        for id in (there, absent):
            status, headers, text = call(method, "/ngsi-ld/v1/" + path.format(id), person.token, purpose, body)
            answers.append((status, headers.get("ngsild-results-count"), text.replace(id, "")))
        cell("http", where + ["absent", method, path], *answers)


def ask_acts(person, d, purpose):
    where = [person.login, purpose, d["id"]]
    high = ceiling(d)
    entity = f"/ngsi-ld/v1/entities/urn:oracle:{d['id']}:victim"
    may = permitted(person, "write", d, high, purpose)
    own = person.kind != "device" or any(
        s == f"urn:oracle:{d['id']}:victim" or s.endswith("*") and f"urn:oracle:{d['id']}:victim".startswith(s[:-1])
        for s in person.streams)
    id, name, fresh = f"urn:oracle:{d['id']}:victim", d["attributes"][0]["name"], next(FRESH)
    status, _, _ = call("PATCH", f"{entity}/attrs", person.token, purpose, {name: fresh})
    cell("http", where + ["write"], may and own, status in (200, 204))
    cell("http", where + ["written"], may and own, held(id, name) == fresh)
    if not (may and own):
        looks = any(permitted(person, "read", d, level, purpose) for level in LEVELS)
        glimpses = any(permitted(person, "glimpse", d, level, purpose) for level in LEVELS)
        # Whoever sees something of it knows that it is there.
        known = dict(d, about_people=d["about_people"] and not looks and not glimpses)
        cell("http", where + ["write refused"], True, status == 401 if person.token is None else refused(person, known, status))
    status, _, _ = call("DELETE", entity, person.token, purpose)
    may = permitted(person, "delete", d, high, purpose)
    cell("http", where + ["delete"], may, status == 204)
    cell("http", where + ["deleted"], may, held(id, name) is None)
    if status == 204:
        put(d["id"], 7, "victim")
    body = {"dataset": d["id"], "reading": f"{d['id']}/none"}
    status, _, _ = call("POST", "/api/v1/acts", person.token, purpose, {"act": "quarantine.discard", "body": body})
    cell("http", where + ["govern"], permitted(person, "govern", d, high, purpose), status == 404)
    status, _, _ = call("GET", f"/api/v1/records?dataset={d['id']}&limit=1", person.token, purpose)
    cell("http", where + ["audit"], permitted(person, "audit", d, high, purpose), status == 200)
    for action in ("write", "delete", "govern", "command"):
        status, _, text = call("GET", f"/api/v1/why?dataset={d['id']}&action={action}", person.token, purpose)
        found = json.loads(text).get("allowed") if status == 200 else status
        expected = 401 if person.revoked else permitted(person, action, d, high, purpose)
        cell("http", where + ["why", action], expected, found)


def every():
    return itertools.product(list(PEOPLE.values()), DATASETS.values(), PURPOSES)


class Publisher:
    """A person at the MQTT door, for as long as may be."""

    def __init__(self, person):
        self.codes, self.reason, done, self.closed = {}, None, threading.Event(), threading.Event()
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"oracle-{person.login}-{id(self)}",
                             protocol=mqtt.MQTTv5, reconnect_on_failure=False)
        client.tls_set_context(TLS)
        client.username_pw_set(person.login, person.token)

        def connected(c, u, f, reason, p):
            self.reason = reason.value
            done.set()

        client.on_connect = connected
        client.on_publish = lambda c, u, mid, reason, p: self.codes.update({mid: reason.value})
        client.on_disconnect = lambda *a: self.closed.set()
        client.connect("localhost", int(READY["mqtts"].rsplit(":", 1)[1]))
        client.loop_start()
        done.wait(20)
        self.client, self.admitted = client, self.reason == 0

    def takes(self, topic, body):
        """Whether what is published is acknowledged as done."""
        sent = self.client.publish(topic, body, qos=1)
        until = time.time() + 20
        while sent.mid not in self.codes and not self.closed.is_set() and time.time() < until:
            time.sleep(0.002)
        return self.codes.get(sent.mid, 255) < 128

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()


def publish_everywhere(person, publisher, when):
    for d in DATASETS.values():
        for name in ("1", "other"):
            id = f"urn:oracle:{d['id']}:{name}"
            own = person.kind != "device" or any(
                s == id or s.endswith("*") and id.startswith(s[:-1]) for s in person.streams)
            may = permitted(person, "write", d, ceiling(d), None) and own
            attribute, fresh = d["attributes"][0]["name"], next(FRESH)
            before = held(id, attribute)
            body = json.dumps({"id": id, "type": d["id"], attribute: fresh})
            cell("mqtt", [person.login, d["id"], name, when], may, publisher.takes(f"in/{d['id']}", body))
            cell("mqtt", [person.login, d["id"], name, when, "written"], may, held(id, attribute) == fresh)
            if before is None:
                call("DELETE", f"/ngsi-ld/v1/entities/{id}", PEOPLE["o.app"].token)
            else:
                must(call("PATCH", f"/ngsi-ld/v1/entities/{id}/attrs", PEOPLE["o.app"].token, body={attribute: before}), 204)


def ask_mqtt(when):
    """Everybody tries to publish into every dataset; gives the connections, which stay open."""
    held = {}
    for person in PEOPLE.values():
        if person.token is None:
            continue
        publisher = Publisher(person)
        cell("mqtt", [person.login, "connect", when], not person.revoked, publisher.admitted)
        if publisher.admitted:
            publish_everywhere(person, publisher, when)
            held[person.login] = publisher
        else:
            publisher.leave()
    return held


def ask_held(held, when):
    """The same on connections that were open while everything changed."""
    for login, publisher in held.items():
        if PEOPLE[login].revoked:
            cell("mqtt", [login, "is sent away", when], True, publisher.closed.wait(10))
        else:
            publish_everywhere(PEOPLE[login], publisher, when)


# ---- subscriptions ------------------------------------------------------------------------------

received = {}
# What was received, by path and key: it may come again, and late, where an answer did not arrive.
keys = set()
arrived = threading.Condition()


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = (self.path, self.headers["Idempotency-Key"])
        with arrived:
            if key not in keys:
                keys.add(key)
                for entity in body["data"]:
                    received.setdefault(self.path, []).append(plain(entity))
                arrived.notify_all()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Receivers(http.server.ThreadingHTTPServer):
    # Room for all that the hub sends at once.
    request_queue_size = 256


subscribed = {}


def subscribe():
    server = Receivers(("127.0.0.1", 0), Receiver)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for n, (person, d, purpose) in enumerate(every()):
        body = {"type": "Subscription", "entities": [{"type": d["id"]}],
                "notification": {"format": "keyValues", "endpoint": {
                    "uri": f"http://127.0.0.1:{server.server_address[1]}/{n}"}}}
        status, _, _ = call("POST", "/ngsi-ld/v1/subscriptions", person.token, purpose, body)
        if status == 201:
            subscribed[f"/{n}"] = (person, d["id"], purpose)
        else:
            # Whoever sees something may ask to be told of it; the public has nobody to be told.
            sees = person.token is not None and shown(person, d, purpose, 7) is not None
            cell("subscriptions", [person.login, purpose, d["id"], "subscribe"], False, sees)


def ask_subscriptions(value, when):
    """Changes everything once; each subscriber is told what he may see, or nothing."""
    with arrived:
        # What was changed before is told of first.
        while arrived.wait(2):
            pass
        received.clear()
    for id in DATASETS:
        put(id, value)
    expected = {}
    for path, (person, id, purpose) in subscribed.items():
        seen = shown(person, DATASETS[id], purpose, value)
        expected[path] = seen
    until = time.time() + 30
    with arrived:
        while time.time() < until and any(seen and path not in received for path, seen in expected.items()):
            arrived.wait(0.2)
    time.sleep(0.5)
    for path, (person, id, purpose) in subscribed.items():
        # As it is now: more comes later.
        told = list(received.get(path, []))
        seen = expected[path]
        where = [person.login, purpose, id, when]
        if not seen:
            cell("subscriptions", where, [], [entity for entity in told if entity])
        else:
            cell("subscriptions", where, [seen], told)


def agreed(first, name, body, second):
    """An act that needs two."""
    agree(act(PEOPLE[first].token, name, body), second)


def agree(answer, second):
    """Has a second person agree to what waits."""
    if answer[0] == 202:
        pending = json.loads(answer[2])["pending"]
        answer = call("POST", f"/api/v1/acts/{pending}/approve", PEOPLE[second].token, body={})
    must(answer, 200)


def ask_everything(value):
    """Every cell over HTTP: first the acts, on an entity of their own, then what is read of the other."""
    for id in DATASETS:
        put(id, 7, "victim")
    for person, d, purpose in every():
        ask_acts(person, d, purpose)
    # The victim must not be counted with the one that is asked about.
    for id in DATASETS:
        must(call("DELETE", f"/ngsi-ld/v1/entities/urn:oracle:{id}:victim", PEOPLE["o.app"].token), 204)
    for person, d, purpose in every():
        ask_reads(person, d, purpose, value)


def objects(acts_first):
    """Whether anything of what is asked is answered otherwise than it ought to be: the first such thing does."""
    global cells, differences
    kept, all_cells = (cells, differences), list(every())
    random.Random(7).shuffle(all_cells)

    def reads():
        for person, d, purpose in all_cells:
            ask_reads(person, d, purpose, 7)
            if differences:
                return True
        return False

    def acts():
        for id in DATASETS:
            put(id, 7, "victim")
        for person, d, purpose in all_cells:
            ask_acts(person, d, purpose)
            if differences:
                break
        for id in DATASETS:
            must(call("DELETE", f"/ngsi-ld/v1/entities/urn:oracle:{id}:victim", PEOPLE["o.app"].token), 204, 404)
        return bool(differences)

    try:
        cells, differences = {}, []
        return acts() or reads() if acts_first else reads() or acts()
    finally:
        cells, differences = kept


def ask_mutants():
    """Each policy taken away, and each without its condition: this oracle objects to every one, or the hub takes it not."""
    text = must(call("GET", "/api/v1/policies"), 200)["text"]
    starts = [at for at in range(len(text)) if text.startswith("@id(", at)] + [len(text)]
    for start, end in zip(starts, starts[1:]):
        policy = text[start:end]
        id = policy.split('"')[1]
        looks = any(f'"{word}"' in policy for word in ("read", "glimpse"))
        for what, mutant in (("without", ""), ("always", policy[:policy.index("when {")] + ";\n")):
            answer = act(PEOPLE["admin"].token, "policies.put", {"text": text[:start] + mutant + text[end:]})
            if answer[0] in (400, 409):
                # It would open what is closed to strangers, or leave nobody who governs.
                cell("policies", [id, what], True, "remedy" in json.loads(answer[2]))
                continue
            agree(answer, "social.admin")
            cell("policies", [id, what], True, objects(not looks))
            agreed("admin", "policies.put", {"text": text}, "social.admin")
    cell("policies", ["as they were"], False, objects(False))


def main():
    global GLIMPSES, FORBIDS
    build()
    ask_everything(7)
    ask_mutants()
    held = ask_mqtt("at first")
    subscribe()
    ask_subscriptions(17, "at first")
    # A dataset changes its purposes, its publication and what its attributes are.
    for id, change in {"published": {"publication": "withheld", "purposes": ["social-care"]},
                       "withheld": {"publication": "open", "purposes": ["energy-saving", "flood-response"]}}.items():
        DATASETS[id].update(copy.deepcopy(change))
        DATASETS[id]["attributes"][0]["sensitivity"] = "special"
        DATASETS[id]["attributes"][12]["sensitivity"] = "open"
        agreed("admin", "dataset.put", {"dataset": DATASETS[id]}, "social.admin")
    ask_subscriptions(27, "after datasets changed")
    ask_everything(27)
    # A policy goes, and one comes.
    text = must(call("GET", "/api/v1/policies"), 200)["text"]
    start = text.index('@id("colleagues-glimpse")')
    end = text.index("@id(", start + 1)
    text = text[:start] + text[end:] + """
@id("oracle-water-apps")
@title("No app of the water department writes.")
forbid (principal, action == Tanggul::Action::"write", resource)
when { principal.kind == "app" && principal.department == "water" };
"""
    agreed("admin", "policies.put", {"text": text}, "social.admin")
    GLIMPSES, FORBIDS = False, True
    ask_subscriptions(37, "after policies changed")
    ask_everything(37)
    ask_held(held, "after policies changed")
    # People go.
    for login in ("water.official", "water.crisis", "part.app", "o.device"):
        must(act(PEOPLE["admin"].token, "principal.revoke", {"login": login}), 200)
        PEOPLE[login].revoked = True
    ask_held(held, "after people went")
    ask_subscriptions(47, "after people went")
    ask_everything(47)
    [publisher.leave() for publisher in ask_mqtt("after people went").values()]
    print(json.dumps({"cells": sum(cells.values()), "by": cells, "differences": differences[:60],
                      "different": len(differences)}))


main()
