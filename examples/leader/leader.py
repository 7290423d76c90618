"""Three of these run, one leads: whoever holds the Lease `leader`, and renews it.

A Lease is an object like any other; what makes it a lock is that the API server refuses an update that was made from an older version of it. Times
of different machines are not compared: a Lease is expired when nobody has changed it for its duration, as this machine's clock counts.
"""
import datetime
import json
import os
import signal
import ssl
import threading
import time
import urllib.error
import urllib.request

NAME, DURATION, PERIOD = os.environ["HOSTNAME"], 3, 0.5
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/"
NAMESPACE = open(ACCOUNT + "namespace").read()
LEASES = f"https://kubernetes.default.svc/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
TLS = ssl.create_default_context(cafile=ACCOUNT + "ca.crt")


def call(method, url, body=None):
    """An answer of the API, or None for what is not there (404) or was changed by somebody else (409)."""
    request = urllib.request.Request(url, method=method, data=json.dumps(body).encode() if body else None)
    # Read each time: the kubelet renews the token.
    request.add_header("Authorization", "Bearer " + open(ACCOUNT + "token").read())
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, context=TLS, timeout=2) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code in (404, 409):
            return None
        raise


class Election:
    seen, since = None, 0.0  # The Lease's last version, and since when it is known.
    leads_until = 0.0

    def leads(self):
        return time.monotonic() < self.leads_until

    def attempt(self):
        """Takes or renews the Lease when that is allowed. Leading ends by itself when renewing does not succeed in time."""
        started = time.monotonic()
        lease = call("GET", LEASES + "/leader")
        if lease is None:
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "leader"}, "spec": {}}
        spec, version = lease["spec"], lease["metadata"].get("resourceVersion")
        if version != self.seen:
            self.seen, self.since = version, started
        holder = spec.get("holderIdentity")
        if holder not in (None, "", NAME) and started - self.since < spec["leaseDurationSeconds"]:
            return
        if holder != NAME:
            spec["leaseTransitions"] = spec.get("leaseTransitions", 0) + 1
        spec.update(holderIdentity=NAME, leaseDurationSeconds=DURATION)
        spec["renewTime"] = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        written = call("PUT", LEASES + "/leader", lease) if version else call("POST", LEASES, lease)
        if written:
            # Shorter than others wait: this one stops before another one begins.
            self.leads_until = started + DURATION * 2 / 3

    def release(self):
        """Lets the next one begin at once."""
        lease = call("GET", LEASES + "/leader")
        if lease and lease["spec"].get("holderIdentity") == NAME:
            lease["spec"]["holderIdentity"] = ""
            call("PUT", LEASES + "/leader", lease)


end = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: end.set())
election, led = Election(), False
while not end.wait(PERIOD):
    try:
        election.attempt()
    except OSError as error:  # The API server is away: whoever leads goes on until its time is over.
        print(f"{NAME}: {error}")
    if election.leads() != led:
        led = not led
        print(f"{NAME} {'leads' if led else 'leads no more'}")
if led:
    election.release()
    print(f"{NAME} has stepped down")
