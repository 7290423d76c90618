"""What senders and workers share: streams of Redis as queues, and the one place where a message takes effect.

A message is delivered at least once: a worker that dies between the effect and the acknowledgement leaves it to another one. It takes effect
exactly once nevertheless, because the effect, the note that it was done, and the acknowledgement are one script, which Redis runs as a whole.
"""
import signal
import threading

import redis

GROUP = "workers"

EFFECT = """
if redis.call('SADD', 'done', ARGV[3]) == 1 then
  redis.call('HINCRBY', 'balance', ARGV[4], ARGV[5])
  redis.call('RPUSH', 'history:' .. ARGV[4], ARGV[3])
end
return redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
"""


def connect():
    """A client that tries again for a while when Redis is away."""
    retry = redis.retry.Retry(redis.backoff.ExponentialBackoff(cap=1, base=0.05), 20)
    errors = [redis.exceptions.ConnectionError, redis.exceptions.TimeoutError]
    return redis.Redis("redis", decode_responses=True, socket_timeout=10, retry=retry, retry_on_error=errors)


def make_group(client, stream):
    """The consumer group of a stream, which reads from its beginning. It may be there already."""
    try:
        client.xgroup_create(stream, GROUP, id="0", mkstream=True)
    except redis.exceptions.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def take_effect(client, stream, entry, message):
    """Books the message's amount and acknowledges it; books nothing when it was booked before."""
    arguments = [GROUP, entry, message["id"], message["account"], message["amount"]]
    client.eval(EFFECT, 1, stream, *arguments)


def until_terminated():
    """An event that SIGTERM sets: finish the message at hand, take no other, end."""
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    return end
