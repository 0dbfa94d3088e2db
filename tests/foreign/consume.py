"""Prints the request logs from the beginning with Python's confluent-kafka: consume.py BROKERS [COUNT]

Ends after COUNT records, or at the end of the topic.
"""

import sys

from confluent_kafka import Consumer, KafkaError

brokers = sys.argv[1]
count = int(sys.argv[2]) if len(sys.argv) > 2 else None

consumer = Consumer(
    {
        "bootstrap.servers": brokers,
        "group.id": "request-log-reader",
        "auto.offset.reset": "earliest",
        # Read anew each time; a service would commit what it has processed.
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    }
)
consumer.subscribe(["request-logs"])
read, ended = 0, set()
try:
    while count is None or read < count:
        message = consumer.poll(30)
        if message is None:
            sys.exit("no answer within 30 s")
        if message.error() is None:
            print(message.value().decode(), flush=True)
            read += 1
        elif message.error().code() == KafkaError._PARTITION_EOF:
            ended.add(message.partition())
            if count is None and ended == {part.partition for part in consumer.assignment()}:
                break
        else:
            sys.exit(f"cannot read: {message.error()}")
finally:
    consumer.close()
