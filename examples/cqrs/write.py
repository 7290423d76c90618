"""The write side: takes deposits and withdrawals, and refuses what an account does not bear. PostgreSQL has the truth: a list of events.

POST /?id=ID&account=NAME&amount=N: 201 the first time, 200 when ID was there before, 409 when the account would fall below zero.
"""
import http.server
import os
import signal
import threading
import urllib.parse

import psycopg2

SCHEMA = """
create table if not exists events (
  number bigserial primary key,
  id text unique not null,
  account text not null,
  amount bigint not null
)
"""


def connect():
    return psycopg2.connect(host="postgres", user="postgres", password=os.environ["PASSWORD"], connect_timeout=5)


def book(values):
    """Status of the answer. One writer at a time: numbers are committed in their order, so that whoever reads on from a number misses nothing."""
    database = connect()
    try:
        with database, database.cursor() as cursor:
            cursor.execute("lock table events in exclusive mode")
            cursor.execute("select 1 from events where id = %s", (values["id"],))
            if cursor.fetchone():
                return 200
            cursor.execute("select coalesce(sum(amount), 0) from events where account = %s", (values["account"],))
            if cursor.fetchone()[0] + int(values["amount"]) < 0:
                return 409
            cursor.execute("insert into events (id, account, amount) values (%(id)s, %(account)s, %(amount)s)", values)
            cursor.execute("notify events")
            return 201
    finally:
        database.close()


class Api(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        try:
            status = book(dict(urllib.parse.parse_qsl(urllib.parse.urlparse(self.path).query)))
        except psycopg2.OperationalError:
            status = 503
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_):
        pass


with connect() as database, database.cursor() as cursor:
    cursor.execute("select pg_advisory_xact_lock(1)")  # Two that start at once make the table once.
    cursor.execute(SCHEMA)
server = http.server.ThreadingHTTPServer(("", 8080), Api)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
