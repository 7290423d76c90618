"""Twenty clients that ask a service without a pause. Port 8080 tells how many requests failed since it was asked before."""
import http.client
import http.server
import sys
import threading
import time

SERVICE, CLIENTS = sys.argv[1], 20
lock = threading.Lock()
counts = {"answered": 0, "failed": 0}
begun = threading.Barrier(CLIENTS + 1)


def ask():
    connection = http.client.HTTPConnection(SERVICE, timeout=10)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        return "answered" if answer.status == 200 else "failed"
    except (OSError, http.client.HTTPException):
        return "failed"
    finally:
        connection.close()


def client():
    # The service may begin later than its clients.
    while ask() == "failed":
        time.sleep(0.2)
    begun.wait()
    while True:
        # A request counts where it began, also if its end comes after a question for the counts.
        mine = counts
        result = ask()
        with lock:
            mine[result] += 1


class Counts(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global counts
        if self.path == "/ready":
            text = "asking\n"
        else:
            with lock:
                text = "{answered} answered, {failed} failed\n".format(**counts)
                counts = {"answered": 0, "failed": 0}
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


for _ in range(CLIENTS):
    threading.Thread(target=client, daemon=True).start()
begun.wait()
http.server.HTTPServer(("", 8080), Counts).serve_forever()
