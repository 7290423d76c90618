"""Two servers that an API server calls: one converts ships between their versions, the other serves berths, a kind of its own, to
whom the API server vouches for. `CERTIFICATES` has what they need. `LISTENING` is printed when both listen."""

import json
import os
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

DIRECTORY = os.environ["CERTIFICATES"]
GROUP, VERSION = "harbour.example.com", "v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def parse_request(self):
        # Read whole, whatever comes of it: what is left would be taken for the next request of the connection.
        understood = super().parse_request()
        self.sent = self.rfile.read(int(self.headers.get("Content-Length", 0))) if understood else b""
        return understood

    def body(self):
        return json.loads(self.sent)

    def answer(self, code, value):
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def status(self, code, reason, message):
        self.answer(code, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
                           "message": message, "code": code})


def converted(ship, version):
    """v1 has `sails: 3`, v2 `rig: {sails: 3}`."""
    spec = dict(ship["spec"])
    if version.endswith("/v2"):
        spec["rig"] = {"sails": spec.pop("sails")}
    else:
        spec["sails"] = spec.pop("rig")["sails"]
    return {**ship, "apiVersion": version, "spec": spec}


class Conversion(Handler):
    def do_POST(self):
        review = self.body()
        request = review["request"]
        objects = [converted(ship, request["desiredAPIVersion"]) for ship in request["objects"]]
        response = {"uid": request["uid"], "convertedObjects": objects, "result": {"status": "Success"}}
        self.answer(200, {"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response})


class Berths(Handler):
    kept = {}
    revision = 0
    changed = threading.Condition()
    events = []

    def trusted(self):
        """The API server, by its certificate's name; who asks stands in its headers."""
        names = [value for part in self.connection.getpeercert()["subject"] for key, value in part if key == "commonName"]
        if names != ["front-proxy-client"]:
            self.status(401, "Unauthorized", f"{names} vouches for nobody")
        return names == ["front-proxy-client"]

    def change(self, kind, berth):
        with self.changed:
            Berths.revision += 1
            berth["metadata"]["resourceVersion"] = str(self.revision)
            self.events.append((self.revision, {"type": kind, "object": berth}))
            self.changed.notify_all()

    def do_GET(self):
        if not self.trusted():
            return
        url = urlparse(self.path)
        parts = url.path.strip("/").split("/")
        if url.path == f"/apis/{GROUP}/{VERSION}":
            berths = {"name": "berths", "singularName": "berth", "namespaced": True, "kind": "Berth", "shortNames": ["be"],
                      "verbs": ["create", "delete", "get", "list", "watch"]}
            self.answer(200, {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/{VERSION}",
                              "resources": [berths]})
        elif "berths" not in parts:
            self.status(404, "NotFound", "the server could not find the requested resource")
        elif parts[-1] == "berths" and "watch=true" in url.query:
            self.watch()
        elif parts[-1] == "berths":
            self.show(list(self.kept.values()), {"kind": "BerthList", "apiVersion": f"{GROUP}/{VERSION}",
                                                 "metadata": {"resourceVersion": str(self.revision)},
                                                 "items": list(self.kept.values())})
        elif parts[-1] in self.kept:
            self.show([self.kept[parts[-1]]], self.kept[parts[-1]])
        else:
            self.status(404, "NotFound", f'berths.{GROUP} "{parts[-1]}" not found')

    def show(self, berths, plain):
        if "as=Table" not in self.headers.get("Accept", ""):
            return self.answer(200, plain)
        columns = [{"name": name, "type": "string", "format": "", "description": "", "priority": 0} for name in ("Name", "Quay", "Owner")]
        rows = [{"cells": [b["metadata"]["name"], b["spec"]["quay"], b["owner"]], "object": b} for b in berths]
        self.answer(200, {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": str(self.revision)},
                          "columnDefinitions": columns, "rows": rows})

    def watch(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        seen = 0
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.revision > seen)
                events, seen = [event for at, event in self.events if at > seen], self.revision
            for event in events:
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                self.wfile.flush()

    def do_POST(self):
        if self.trusted():
            berth = self.body()
            berth["owner"] = f"{self.headers['X-Remote-User']} of {', '.join(sorted(self.headers.get_all('X-Remote-Group')))}"
            berth["metadata"]["uid"] = f"berth-{len(self.events)}"
            self.kept[berth["metadata"]["name"]] = berth
            self.change("ADDED", berth)
            self.answer(201, berth)

    def do_DELETE(self):
        if self.trusted():
            name = urlparse(self.path).path.split("/")[-1]
            berth = self.kept.pop(name)
            self.change("DELETED", berth)
            self.answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success", "details": {"name": name, "kind": "berths"}})


def listen(port, handler, clients=None):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients)
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(f"{DIRECTORY}/hook.crt", f"{DIRECTORY}/hook.key")
    server = ThreadingHTTPServer(("0.0.0.0", port), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever).start()


listen(9444, Conversion)
listen(9445, Berths, clients=f"{DIRECTORY}/front-proxy.crt")
print("LISTENING", flush=True)
