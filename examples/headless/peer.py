"""A peer that looks up all peers by the name of their Service, greets each, and tells whom it has met."""
import http.client
import http.server
import os
import signal
import socket
import sys
import threading

NAME, SERVICE, PORT, SIZE = os.environ["HOSTNAME"], "peers", 7000, 3
met = set()


def addresses():
    """Addresses of all peers: the Service's name has one record for each pod."""
    try:
        return {found[4][0] for found in socket.getaddrinfo(SERVICE, PORT, type=socket.SOCK_STREAM)}
    except socket.gaierror:
        return set()


def greet(address):
    """The name that a peer answers with, if it does."""
    connection = http.client.HTTPConnection(address, PORT, timeout=2)
    try:
        connection.request("GET", "/name")
        return connection.getresponse().read().decode()
    except OSError:
        return None
    finally:
        connection.close()


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answers = {"/name": NAME, "/met": " ".join(sorted(met))}
        ready = len(met) == SIZE
        self.send_response(200 if self.path in answers or (self.path == "/ready" and ready) else 503)
        self.end_headers()
        self.wfile.write(answers.get(self.path, "").encode())

    def log_message(self, *_):
        pass


end = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: end.set())
server = http.server.ThreadingHTTPServer(("", PORT), Answer)
threading.Thread(target=server.serve_forever, daemon=True).start()
while not end.wait(0.5):
    now = {name for name in map(greet, addresses()) if name}
    for name in sorted(now - met):
        print(f"{NAME} met {name}")
    met = now
sys.exit(0)
