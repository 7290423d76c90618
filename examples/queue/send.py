"""Sends N payments of 1 to ten accounts: send.py standard|fifo N.

It may be run again after a failure: a message has the same id each time, so the second one of a pair has no effect.
"""
import sys
import zlib

from queueing import connect

KIND, COUNT = sys.argv[1], int(sys.argv[2])
PARTITIONS = 2
client = connect()
for number in range(COUNT):
    account = f"account-{number % 10}"
    # All messages of an account go to one partition, where they keep their order.
    stream = f"fifo-{zlib.crc32(account.encode()) % PARTITIONS}" if KIND == "fifo" else "payments"
    client.xadd(stream, {"id": f"{KIND}-{number:05}", "account": account, "amount": 1})
print(f"{COUNT} sent")
