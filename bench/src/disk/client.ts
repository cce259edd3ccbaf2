import { get } from 'node:http'
import { parentPort, workerData } from 'node:worker_threads'

// A reader of raw bytes, in a thread of its own: it counts events until it has `count` and says how many milliseconds that
// took, from the request on.
const { port, count } = workerData as { port: number; count: number }
const mark = '"pad"'

const started = performance.now()
get({ port, path: '/v1/events?from=earliest', headers: { accept: 'text/event-stream' } }, (response) => {
  let found = 0
  let rest = Buffer.alloc(0)
  response.on('data', (bytes: Buffer) => {
    const chunk = Buffer.concat([rest, bytes])
    for (let at = chunk.indexOf(mark); at >= 0; at = chunk.indexOf(mark, at + mark.length)) found++
    // A mark may be parted by the end of a chunk; a whole one is never kept.
    rest = chunk.subarray(Math.max(0, chunk.length - mark.length + 1))
    if (found < count) return
    parentPort?.postMessage({ ms: performance.now() - started, found })
    response.destroy()
  })
})
