"""Keeps the stock. It hears of orders, reserves what there is, and tells whether it was enough. GET / tells what is left."""
import http.server

from bus import Service

service = Service("stock", """
create table if not exists stock (item text primary key, pieces int check (pieces >= 0));
insert or ignore into stock values ('sail', 30), ('oar', 100);
""")


def reserve(store, event):
    change = "update stock set pieces = pieces - ? where item = ? and pieces >= ?"
    reserved = store.execute(change, (event["quantity"], event["item"], event["quantity"])).rowcount == 1
    service.emit(store, "stock", order=event["order"], reserved=reserved)


class Api(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        rows = service.query("select item, pieces from stock order by item")
        self.send_response(200)
        self.end_headers()
        self.wfile.write("".join(f"{item} {pieces}\n" for item, pieces in rows).encode())

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("", 8080), Api)
service.run(server.serve_forever, lambda: service.receive("orders", reserve))
