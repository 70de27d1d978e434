# Print who is seen and how they look:  python subscribe.py [address [key file]]
import json
import sys
from pathlib import Path

import msgpack
import zmq

socket = zmq.Context().socket(zmq.SUB)
if len(sys.argv) > 2:  # from another machine: the file that 'python launch.py keys make NAME --role subscriber' names
    key = {name: str(value).encode() for name, value in json.loads(Path(sys.argv[2]).read_text()).items()}
    socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = key["server"], key["public"], key["secret"]
socket.connect(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5561")
socket.subscribe(b"results.")  # of all cameras; b"results.cam0" for one
while True:
    topic, packed = socket.recv_multipart()
    for face in (result := msgpack.unpackb(packed))["faces"]:
        who, look = face["identity"], face["expression"]
        word = look["label"] or look["reason"] or look["status"]
        print(topic.decode(), result["seq"], who["name"] or who["status"], word, flush=True)
