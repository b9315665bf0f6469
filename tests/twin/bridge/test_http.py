"""The plant behind HTTP is the plant; whatever is lost on the way is unknown, never a number."""

import json
import socket
import socketserver
import threading
import time
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twin.bridge.http_plant import HttpPlant
from twin.bridge.server import app, serve
from twin.errors import BridgeError, TelemetryLost, UsageError
from twin.types import Action, Observation, Outcome, Plant


@pytest.fixture(scope="module")
def house(make_plant):
    """One plant behind two servers that stand for all tests, the second with a token."""
    plant = make_plant()
    with serve(app(plant, simulated=True)) as url, serve(app(plant, "secret", simulated=True)) as token_url:
        yield plant, url, token_url


@pytest.fixture
def plant(house):
    """The plant of the house, as new."""
    vars(house[0]).clear()
    house[0].__init__()
    return house[0]


@pytest.fixture
def served(house, plant):
    with HttpPlant(house[1]) as remote:
        yield remote


@pytest.fixture
def token_url(house, plant):
    return house[2]


@pytest.fixture(scope="module")
def ask():
    """`ask(url, method, path, ...)`: the answer to one request."""
    with httpx.Client(trust_env=False, timeout=5.0) as client:
        yield lambda url, method, path, **sent: client.request(method, url + path, **sent)


# ---------------------------------------------------------------- the round trip


def test_the_other_end_sees_exactly_what_the_plant_shows(plant, served):
    plant.wanted["web"] = 0.1  # no float32
    direct, remote = plant.observe(), served.observe()
    assert remote.columns == direct.columns
    assert remote.time_s == direct.time_s
    np.testing.assert_array_equal(remote.values, direct.values)
    assert remote.values.dtype == np.float32
    assert remote.digest() == direct.digest()


def test_unknown_crosses_as_null_and_arrives_as_nan(ask, plant):
    plant.demand["web"] = float("inf")  # no measurement either
    with serve(app(plant)) as url:
        values = ask(url, "GET", "/observation").json()["values"]
        assert values[0] is None
        assert values[3] is None
        with HttpPlant(url) as remote:
            seen = remote.observe()
    assert np.isnan(seen["web.demand_rps"])
    assert np.isnan(seen["api.demand_rps"])
    assert seen["web.wanted_replicas"] == 3.0


def test_actions_reach_the_plant_as_they_were_meant(plant, served):
    served.observe()
    actions = [Action("replicas", "web", 25, "load", 0.75), Action("nodes", "main", 5)]
    assert served.apply(actions) == [Outcome("applied", 20), Outcome("applied", 5)]
    assert plant.applied == [actions]
    assert served.apply([]) == []


def test_a_simulated_clock_is_moved_from_the_other_end(plant, served):
    served.advance(90.5)
    assert plant.time == served.time_s == 90.5
    assert served.observe().time_s == 90.5


def test_the_columns_stay_one_tuple_as_long_as_nothing_changes(served):
    assert served.observe().columns is served.observe().columns


def test_the_other_end_is_a_plant(served):
    assert isinstance(served, Plant)


def test_a_live_plant_is_waited_for_and_its_clock_carried_on(plant):
    waited = []
    plant.time = 100.0
    with serve(app(plant)) as url, HttpPlant(url, wait=waited.append) as remote:
        remote.advance(60.0)
        assert waited == [60.0]
        assert plant.time == 100.0
        first = remote.time_s
        time.sleep(0.02)
        assert 100.0 < first < remote.time_s < 110.0


def test_the_clock_of_a_live_plant_cannot_be_moved(ask, plant):
    with serve(app(plant)) as url:
        answer = ask(url, "POST", "/advance", json={"seconds": 1.0})
        assert answer.status_code == 409
        assert "wait instead" in answer.json()["detail"]
    assert plant.time == 0.0


def test_health_tells_kind_and_clock_of_the_plant_to_anybody(ask, token_url):
    assert ask(token_url, "GET", "/healthz").json() == {"status": "ok", "simulated": True, "time_s": 0.0}


def test_requests_take_turns_at_the_plant(ask, plant, served):
    """Two at once would tear the plant's state."""
    inside, most = [0], [0]
    real = plant.observe

    def slow():
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.02)
        inside[0] -= 1
        return real()

    plant.observe = slow
    threads = [threading.Thread(target=ask, args=(served.url, "GET", "/observation")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert plant.observed == 8


# ---------------------------------------------------------------- what the server refuses


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", "Bearer secretsecret", "Basic secret", "secret"]
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/observation"), ("POST", "/actions"), ("POST", "/advance")])
def test_without_the_token_nothing_is_answered(ask, token_url, plant, header, method, path):
    answer = ask(token_url, method, path, json=[], headers={} if header is None else {"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert plant.observed == 0


def test_with_the_token_everything_is(token_url):
    with HttpPlant(token_url, "secret") as remote:
        remote.observe()
        assert remote.apply([Action("replicas", "web", 4)]) == [Outcome("applied", 4)]
        remote.advance(1.0)
    with HttpPlant(token_url, "wrong") as stranger, pytest.raises(TelemetryLost, match="401"):
        stranger.observe()


def test_an_unknown_target_is_422_and_names_the_known_ones(ask, plant, served):
    served.observe()
    answer = ask(served.url, "POST", "/actions", json=[{"kind": "replicas", "target": "nobody", "value": 3}])
    assert answer.status_code == 422
    assert answer.json()["detail"] == "no target 'nobody' for kind 'replicas'; known: ['web', 'api']"
    with pytest.raises(BridgeError, match="nobody"):
        served.apply([Action("replicas", "nobody", 3)])
    with pytest.raises(BridgeError, match="known: \\['main'\\]"):
        served.apply([Action("nodes", "web", 3), Action("replicas", "web", 9)])
    assert plant.applied == []


def test_acting_unseen_is_refused(plant):
    with serve(app(plant)) as url, HttpPlant(url) as remote, pytest.raises(BridgeError, match="observe"):
        remote.apply([Action("replicas", "web", 3)])
    assert plant.applied == []


@pytest.mark.parametrize(
    "change",
    [
        {"value": "4"},
        {"value": 4.5},
        {"value": True},
        {"value": -1},
        {"value": None},
        {"kind": "pods"},
        {"confidence": 1.5},
        {"confidence": "1"},
        {"target": ""},
        {"target": 3},
        {"reason": "x" * 3000},
        {"surprise": 1},
    ],
    ids=repr,
)
def test_a_malformed_action_is_422_and_names_the_field(ask, plant, served, change):
    served.observe()
    wish = {"kind": "replicas", "target": "web", "value": 4} | change
    answer = ask(served.url, "POST", "/actions", json=[wish])
    assert answer.status_code == 422
    assert f"body.0.{next(iter(change))}" in answer.json()["detail"]
    assert plant.applied == []


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"null", b'[{"kind":"replicas","target":"web","value":NaN}]'])
def test_a_body_that_is_no_list_of_actions_is_422(ask, plant, served, body):
    served.observe()
    answer = ask(served.url, "POST", "/actions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)
    assert plant.applied == []


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e9, "5", None])
def test_time_passes_forward_and_in_bounds_only(ask, plant, served, seconds):
    assert ask(served.url, "POST", "/advance", json={"seconds": seconds}).status_code == 422
    assert plant.time == 0.0


def test_a_plant_that_cannot_answer_is_503_and_lost_at_the_other_end(plant, served):
    plant.lost_turns = {0}
    with pytest.raises(TelemetryLost, match=r"503.*metrics source"):
        served.observe()
    assert served.observe()["web.wanted_replicas"] == 3.0


def test_a_defect_of_the_plant_is_500_and_lost_at_the_other_end(plant, served):
    def broken():
        raise ZeroDivisionError

    plant.observe = broken
    with pytest.raises(TelemetryLost):
        served.observe()


def test_without_token_only_loopback_names_are_answered(ask, served, token_url):
    """A web page that lets its own name point here is another name."""
    assert ask(served.url, "GET", "/observation", headers={"Host": "evil.example"}).status_code == 400
    assert ask(served.url, "GET", "/observation", headers={"Host": "localhost:1"}).status_code == 200
    sent = {"Host": "plant.example", "Authorization": "Bearer secret"}
    assert ask(token_url, "GET", "/observation", headers=sent).status_code == 200


def test_an_open_address_needs_a_token(plant):
    with pytest.raises(UsageError, match="no token"), serve(app(plant), host="0.0.0.0"):
        pass


@pytest.mark.parametrize("token", ["", " ", "a\nb", "ä", " x"])
def test_a_token_that_is_none_is_refused_at_both_ends(plant, token):
    with pytest.raises(UsageError, match="token"):
        app(plant, token)
    with pytest.raises(UsageError, match="token"):
        HttpPlant("http://127.0.0.1:1", token)


# ---------------------------------------------------------------- the server's life


def test_leaving_the_context_frees_address_and_thread(plant):
    def servers():
        return [t for t in threading.enumerate() if t.name == "plant-server"]

    before = servers()
    with serve(app(plant)) as url:
        port = httpx.URL(url).port
        assert port
        with HttpPlant(url) as remote:
            remote.observe()
    assert servers() == before
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=1.0)
    with serve(app(plant), port=port) as again:
        assert again == url


def test_a_taken_address_is_refused(plant):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BridgeError, match="cannot be bound"):
        serve(app(plant), port=taken.getsockname()[1]).__enter__()


# ---------------------------------------------------------------- what is lost on the way


@contextmanager
def answering(respond):
    """The address of a server that answers every request with the raw bytes of `respond(request)`."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            request = self.request.recv(65536)
            for part in respond(request):
                try:
                    self.request.sendall(part)
                except OSError:
                    return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def http(body, status="200 OK"):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return [f"HTTP/1.1 {status}\r\nContent-Length: {len(raw)}\r\nConnection: close\r\n\r\n".encode() + raw]


GOOD = {"time_s": 60.0, "columns": ["web.demand_rps", "web.wanted_replicas"], "values": [1.5, 3.0]}


def observed(body, status="200 OK"):
    with answering(lambda request: http(body, status)) as url, HttpPlant(url) as plant:
        return plant.observe()


def test_a_good_answer_of_any_server_is_an_observation():
    assert observed(GOOD)["web.demand_rps"] == 1.5


@pytest.mark.parametrize(
    "change",
    [
        {"time_s": None},
        {"time_s": "60"},
        {"time_s": True},
        {"time_s": 10**400},
        {"columns": []},
        {"columns": None},
        {"columns": ["a", 1]},
        {"columns": ["a", "a"]},
        {"values": []},
        {"values": [1.0]},
        {"values": [1.0, 2.0, 3.0]},
        {"values": None},
        {"values": [1.0, "2"]},
        {"values": [1.0, False]},
        {"values": [1.0, 1e300]},
        {"values": [1.0, 10**400]},
        {"values": [1.0, float("nan")]},
        {"values": [1.0, float("inf")]},
        {"values": {"0": 1.0, "1": 2.0}},
    ],
    ids=lambda change: repr(change)[:40],
)
def test_a_malformed_observation_is_lost(change):
    with pytest.raises(TelemetryLost, match="/observation"):
        observed(GOOD | change)


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"0", b'"x"', b"{", b"\xff", b"<html></html>", b"[" * 100_000],
    ids=lambda b: repr(b)[:20],
)
def test_an_answer_that_is_no_observation_is_lost(body):
    with pytest.raises(TelemetryLost):
        observed(body)


@pytest.mark.parametrize("status", ["204 No Content", "301 Moved", "401 No", "404 No", "500 No", "503 No"])
def test_any_status_but_200_is_lost(status):
    with pytest.raises(TelemetryLost):
        observed(GOOD, status)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["time_s", "columns", "values", "x"]), inner, max_size=4)
        ),
        max_leaves=8,
    )
)
def test_whatever_comes_is_an_observation_or_lost(anything, body):
    url, answer = anything
    answer[:] = http(body)
    with HttpPlant(url) as plant:
        try:
            seen = plant.observe()
        except TelemetryLost:
            return
    assert isinstance(seen, Observation)
    assert len(seen.values) == len(seen.columns) > 0
    assert not np.isinf(seen.values).any()


@pytest.fixture(scope="module")
def anything():
    """The address of a server, and the list with what it answers."""
    answer = []
    with answering(lambda request: answer) as url:
        yield url, answer


def test_a_dead_or_silent_or_rude_server_is_lost_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with HttpPlant(url, timeout_s=0.1) as plant, pytest.raises(TelemetryLost, match="no answer"):
            plant.observe()
        assert time.monotonic() - started < 5.0
    with HttpPlant(url, timeout_s=0.5) as plant, pytest.raises(TelemetryLost, match="is the plant up"):
        plant.observe()
    for rude in ([b""], [b"GARBAGE\r\n\r\n"], [http(GOOD)[0][:-5]]):
        with answering(lambda request, rude=rude: rude) as url, HttpPlant(url) as plant, pytest.raises(TelemetryLost):
            plant.observe()


def test_the_time_limit_holds_for_the_whole_answer_not_for_each_piece():
    def drip(request):
        [whole] = http(json.dumps(GOOD).encode() + b" " * 200)
        yield whole[:-200]
        for _ in range(200):
            time.sleep(0.02)
            yield b" "

    with answering(drip) as url, HttpPlant(url, timeout_s=0.2) as plant:
        started = time.monotonic()
        with pytest.raises(TelemetryLost, match="longer than"):
            plant.observe()
        assert time.monotonic() - started < 2.0


def test_an_observation_that_does_not_move_with_time_is_stale(plant, served):
    served.observe()
    served.observe()  # no time passed: the same again is fine
    served.advance(60.0)
    plant.time = 0.0
    with pytest.raises(TelemetryLost, match="stale"):
        served.observe()
    plant.time = 60.0
    served.observe()


def test_an_observation_from_the_past_is_stale(plant, served):
    plant.time = 600.0
    served.observe()
    plant.time = 540.0
    with pytest.raises(TelemetryLost, match="stale"):
        served.observe()


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        [{"status": "applied", "value": 1}] * 2,
        [{"status": "done", "value": 1}],
        [{"status": "applied", "value": "1"}],
        [{"status": "applied", "value": True}],
        [{"status": "applied"}],
        [None],
        [{"status": "applied", "value": 1, "message": None}],
    ],
    ids=repr,
)
def test_outcomes_that_are_none_leave_unknown_what_was_done(answer):
    unknown = pytest.raises(TelemetryLost, match="unknown")
    with answering(lambda request: http(answer)) as url, HttpPlant(url) as plant, unknown:
        plant.apply([Action("replicas", "web", 3)])


def test_a_plant_of_unknown_kind_is_neither_moved_nor_waited_for():
    waited = []
    with answering(lambda request: http({"status": "ok"})) as url, HttpPlant(url, wait=waited.append) as plant:
        with pytest.raises(TelemetryLost, match="right address"):
            plant.advance(60.0)
        with pytest.raises(TelemetryLost):
            _ = plant.time_s
    assert waited == []


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1",
        "127.0.0.1:80",
        "",
        "http://",
        "file:///etc/passwd",
        "http://10.0.0.1:80",
        "http://plant.example",
        "https://user:secret@plant.example",
        "https://plant.example/path",
        "https://plant.example?x=1",
        "http://127.0.0.1.evil.example",
        "http://[::1",
    ],
)
def test_addresses_that_are_not_safe_are_refused(url):
    with pytest.raises(UsageError) as error:
        HttpPlant(url)
    assert "secret@" not in str(error.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost", "http://[::1]:1", "https://plant.example/"])
def test_loopback_and_https_are_accepted(url):
    HttpPlant(url).close()


def test_plain_http_elsewhere_is_accepted_when_asked_for():
    HttpPlant("http://10.0.0.1:80", allow_plain=True).close()


def test_no_proxy_of_the_environment_is_used(plant, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with serve(app(plant)) as url, HttpPlant(url) as remote:
        remote.observe()
