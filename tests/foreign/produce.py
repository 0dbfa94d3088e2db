"""Publishes one rating with Python's confluent-kafka: produce.py BROKERS USER_ID MOVIE_ID RATING [EVENT_ID]"""

import json
import sys
import time
import uuid

from confluent_kafka import Producer

brokers, user_id, movie_id, rating = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
event = {
    "schema_version": 1,
    "event_id": sys.argv[5] if len(sys.argv) > 5 else str(uuid.uuid4()),
    "user_id": user_id,
    "movie_id": movie_id,
    "kind": "rating",
    "rating": rating,
    "timestamp": int(time.time() * 1000),
    "source": "python",
}

failures = []
producer = Producer(
    {
        "bootstrap.servers": brokers,
        "enable.idempotence": True,
        # The partitioner of the Java client and of marquee: one user's events must share a partition to stay in order.
        "partitioner": "murmur2_random",
    }
)
producer.produce(
    "interactions",
    key=str(user_id),
    value=json.dumps(event),
    on_delivery=lambda error, message: failures.append(error) if error else None,
)
unsent = producer.flush(30)
if unsent or failures:
    sys.exit(f"not published: {failures or 'no answer within 30 s'}")
print(json.dumps(event))
