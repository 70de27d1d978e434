// Print who is seen and how they look:  npm install && node subscribe.js [address [key file]]
import { readFileSync } from "node:fs"
import { decode } from "@msgpack/msgpack"
import { Subscriber } from "zeromq"

const socket = new Subscriber()
if (process.argv[3]) { // from another machine: the file that 'python launch.py keys make NAME --role subscriber' names
  const key = JSON.parse(readFileSync(process.argv[3], "ascii"))
  Object.assign(socket, { curveServerKey: key.server, curvePublicKey: key.public, curveSecretKey: key.secret })
}
socket.connect(process.argv[2] ?? "tcp://127.0.0.1:5561")
socket.subscribe("results.") // of all cameras; "results.cam0" for one
for await (const [topic, packed] of socket) {
  const result = decode(packed)
  for (const { expression, identity } of result.faces) {
    const look = expression.status === "ok" ? expression.label : (expression.reason ?? expression.status)
    console.log(topic.toString(), result.seq, identity.name ?? identity.status, look)
  }
}
