"""Takes orders. An order is `pending` until the stock has answered: `confirmed` or `rejected`.

POST /orders?id=ID&item=ITEM&quantity=N takes one; the id is the customer's, so that a request may be sent again. GET /orders counts them by state.
"""
import http.server
import urllib.parse

from bus import Service

service = Service("orders", "create table if not exists orders (id text primary key, item text, quantity int, state text);")


def take(store, order, item, quantity):
    row = (order, item, quantity)
    if store.execute("insert or ignore into orders values (?, ?, ?, 'pending')", row).rowcount:
        service.emit(store, "orders", order=order, item=item, quantity=quantity)


def answered(store, event):
    state = "confirmed" if event["reserved"] else "rejected"
    store.execute("update orders set state = ? where id = ?", (state, event["order"]))


class Api(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        values = dict(urllib.parse.parse_qsl(urllib.parse.urlparse(self.path).query))
        service.transaction(lambda store: take(store, values["id"], values["item"], int(values["quantity"])))
        self.answer(202, "pending\n")

    def do_GET(self):
        rows = service.query("select state, count(*) from orders group by state order by state")
        self.answer(200, "".join(f"{state} {count}\n" for state, count in rows))

    def answer(self, status, text):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("", 8080), Api)
service.run(server.serve_forever, lambda: service.receive("stock", answered))
