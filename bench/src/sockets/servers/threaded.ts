import { once } from 'node:events'
import { MessageChannel, Worker } from 'node:worker_threads'
import { createBroker, JsonText, memoryLog } from 'spillway'
import { shareLog } from 'spillway/shared'
import type { SocketServer } from '../contender.ts'

/** As `overHttp`, but another thread serves, from shared memory. */
export async function inThread(): Promise<SocketServer> {
  const capacity = 2048
  const log = shareLog(memoryLog({ capacity }))
  const { port1, port2 } = new MessageChannel()
  const readers = new Int32Array(new SharedArrayBuffer(4))
  const worker = new Worker(new URL('./http-thread.js', import.meta.url), {
    workerData: { log: log.connect(port1), port: port2, capacity, readers },
    transferList: [port2],
  })
  const broker = createBroker({ capacity, log })
  const [port] = (await once(worker, 'message')) as [number]
  return {
    port,
    readers: () => Atomics.load(readers, 0),
    publish(events) {
      for (const text of events) {
        broker.publish({ topic: 'bench', type: 'event', payload: new JsonText(text) }).catch((error) => {
          throw error
        })
      }
    },
  }
}
