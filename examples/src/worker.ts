// A worker thread that follows the main thread's stream over HTTP and does the heavy part, so that publishing goes on meanwhile.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { createBroker } from 'spillway'
import { createClient } from 'spillway/client'
import { toNodeHandler } from 'spillway/node'

interface Topics {
  Number: number
}

if (isMainThread) {
  const broker = createBroker<Topics>()
  const server = createServer(toNodeHandler(broker)).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const worker = new Worker(new URL(import.meta.url), { workerData: url })
  for (const number of [90, 91, 97, 99]) await broker.publish({ topic: 'Number', type: 'Asked', payload: number })
  worker.on('message', (text) => console.log(text))
  await new Promise((resolve) => worker.once('exit', resolve))
  server.close()
  await broker.close()
} else {
  const numbers = createClient<Topics>({ url: workerData }).subscribe({ from: 'earliest' })
  for (let n = 0; n < 4; n++) {
    for (const { payload } of (await numbers.next()).events) parentPort?.postMessage(`${payload}: ${factors(payload)}`)
  }
  numbers.close()
}

function factors(number: number): string {
  const found: number[] = []
  let left = number
  for (let factor = 2; factor <= left; factor++) {
    for (; left % factor === 0; left /= factor) found.push(factor)
  }
  return found.join(' x ')
}
