"""Between both sides: reads events from where it was, and brings what they mean to the read store.

The number of the last event stands in the read store and changes together with the balances, provided that nobody else has changed it in between
(WATCH). So nothing is counted twice, neither after a crash nor by two projections at once, and an empty read store is filled again from the beginning.
"""
import os
import select

import psycopg2
import psycopg2.extensions
import redis

store = redis.Redis("redis", decode_responses=True, socket_timeout=5)
database = psycopg2.connect(host="postgres", user="postgres", password=os.environ["PASSWORD"], connect_timeout=5)
database.set_isolation_level(psycopg2.extensions.ISOLATION_LEVEL_AUTOCOMMIT)
cursor = database.cursor()
cursor.execute("listen events")


def step(change):
    """Brings the next events over, and says how many."""
    change.watch("number")
    number = int(change.get("number") or 0)
    cursor.execute("select number, account, amount from events where number > %s order by number limit 100", (number,))
    events = cursor.fetchall()
    change.multi()
    for number, account, amount in events:
        change.hincrby("balances", account, amount)
        change.hincrby("bookings", account, 1)
    change.set("number", number)
    change.execute()
    return len(events)


# Whatever else fails here ends the program. Kubernetes starts it again, and it goes on from the number.
while True:
    try:
        with store.pipeline() as change:
            found = step(change)
    except redis.exceptions.WatchError:
        continue
    if not found:
        select.select([database], [], [], 5)  # Until there is news, or for five seconds: the read store may have lost its data.
        database.poll()
        database.notifies.clear()
