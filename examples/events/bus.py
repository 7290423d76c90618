"""What both services share: their own store with an outbox, and the streams of Redis that lead from one to the other.

A service changes its store and notes the event about it in the same transaction (the outbox). A relay publishes what is noted and forgets it afterwards,
so an event may be published twice but never not at all. Who receives it writes its id into its own store in the transaction that handles it, so that
it is handled once.
"""
import json
import signal
import sqlite3
import threading
import uuid

import redis

SCHEMA = """
create table if not exists outbox (id text primary key, stream text, body text);
create table if not exists handled (id text primary key);
"""


def connect():
    """A client that tries again for a while when Redis is away."""
    retry = redis.retry.Retry(redis.backoff.ExponentialBackoff(cap=1, base=0.05), 20)
    errors = [redis.exceptions.ConnectionError, redis.exceptions.TimeoutError]
    return redis.Redis("redis", decode_responses=True, socket_timeout=10, retry=retry, retry_on_error=errors)


class Service:
    def __init__(self, name, schema):
        self.name, self.lock, self.news = name, threading.RLock(), threading.Event()
        self.store = sqlite3.connect("/data/store.db", check_same_thread=False, isolation_level=None)
        self.store.execute("pragma synchronous = full")
        self.store.executescript(SCHEMA + schema)

    def transaction(self, work):
        """All of it or nothing. `work` gets the store."""
        with self.lock:
            self.store.execute("begin immediate")
            try:
                result = work(self.store)
                self.store.execute("commit")
            except BaseException:
                self.store.execute("rollback")
                raise
        self.news.set()
        return result

    def emit(self, store, stream, **body):
        """Notes an event in the transaction of `store`."""
        store.execute("insert into outbox values (?, ?, ?)", (uuid.uuid4().hex, stream, json.dumps(body)))

    def query(self, sql, *values):
        with self.lock:
            return self.store.execute(sql, values).fetchall()

    def relay(self):
        """Publishes what the outbox has, for ever."""
        client = connect()
        while True:
            self.news.clear()
            for key, stream, body in self.query("select id, stream, body from outbox order by rowid"):
                client.xadd(stream, {"id": key, "body": body})
                with self.lock:
                    self.store.execute("delete from outbox where id = ?", (key,))
            self.news.wait(timeout=5)

    def receive(self, stream, handle):
        """Hands each event of a stream to `handle(store, body)` in a transaction, for ever."""
        client = connect()
        try:
            client.xgroup_create(stream, self.name, id="0", mkstream=True)
        except redis.exceptions.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        position = "0"  # What was received and not acknowledged before a crash comes first.
        while True:
            answer = client.xreadgroup(self.name, self.name, {stream: position}, count=1, block=1000)
            messages = answer[0][1] if answer else []
            for entry, message in messages:
                self.transaction(lambda store: self.once(store, message, handle))
                client.xack(stream, self.name, entry)
            if not messages:
                position = ">"

    def once(self, store, message, handle):
        if store.execute("insert or ignore into handled values (?)", (message["id"],)).rowcount:
            handle(store, json.loads(message["body"]))

    def run(self, *tasks):
        """Runs tasks beside each other. A task that fails ends the program, which Kubernetes starts again; so does SIGTERM, at any moment."""
        end = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: end.set())
        failed = []

        def task(work):
            try:
                work()
            except BaseException as error:
                failed.append(error)
                end.set()

        for work in [self.relay, *tasks]:
            threading.Thread(target=task, args=[work], daemon=True).start()
        end.wait()
        if failed:
            raise failed[0]
