"""The read side: answers from what is prepared, without a look at the database. GET /NAME: balance and number of bookings."""
import http.server
import signal
import threading

import redis

store = redis.Redis("redis", decode_responses=True, socket_timeout=5)


class Api(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        account = self.path.strip("/")
        try:
            status, text = 200, f"{store.hget('balances', account) or 0} after {store.hget('bookings', account) or 0} bookings\n"
        except redis.exceptions.RedisError as error:
            status, text = 503, f"{error}\n"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("", 8080), Api)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
