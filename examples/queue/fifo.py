"""A worker of the FIFO queue: the messages of an account take effect in the order in which they were sent.

Each partition has one worker, the pod of a StatefulSet with its number: Kubernetes never runs two pods of one name. The worker takes a message
after the other, and the next one only when the one before is acknowledged. After a start it begins with what it had left unacknowledged.
"""
import os
import time

from queueing import GROUP, connect, make_group, take_effect, until_terminated

NAME = os.environ["HOSTNAME"]
STREAM = "fifo-" + NAME.rsplit("-", 1)[1]

end = until_terminated()
client = connect()
make_group(client, STREAM)
position = "0"  # From the first unacknowledged message of this worker.
while not end.is_set():
    answer = client.xreadgroup(GROUP, NAME, {STREAM: position}, count=1, block=500)
    messages = answer[0][1] if answer else []
    for entry, message in messages:
        time.sleep(float(os.environ["WORK"]))
        take_effect(client, STREAM, entry, message)
    if not messages:
        position = ">"  # Nothing is left from before: new ones.
print("ended in good order", flush=True)
