"""Print who is seen and how they look: a program of your own, in another process or on another machine."""

import sys

import msgpack
import zmq

address = sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5561"
socket = zmq.Context().socket(zmq.SUB)
socket.connect(address)
socket.subscribe(b"results.")  # of all cameras; b"results.cam0" for one

while True:
    topic, packed = socket.recv_multipart()
    result = msgpack.unpackb(packed)
    for face in result["faces"]:
        expression, identity = face["expression"], face["identity"]
        look = expression["label"] if expression["status"] == "ok" else expression["reason"] or expression["status"]
        print(topic.decode(), result["seq"], identity["name"] or identity["status"], look, flush=True)
