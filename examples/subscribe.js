// Print who is seen and how they look, from Node:  npm install && node subscribe.js [address]

import { decode } from "@msgpack/msgpack"
import { Subscriber } from "zeromq"

const socket = new Subscriber()
socket.connect(process.argv[2] ?? "tcp://127.0.0.1:5561")
socket.subscribe("results.") // of all cameras; "results.cam0" for one

for await (const [topic, packed] of socket) {
  const result = decode(packed)
  for (const { expression, identity } of result.faces) {
    const look = expression.status === "ok" ? expression.label : (expression.reason ?? expression.status)
    console.log(topic.toString(), result.seq, identity.name ?? identity.status, look)
  }
}
