import { createServer } from 'node:http'
import { parentPort, workerData } from 'node:worker_threads'
import { createBroker } from 'spillway'
import { toNodeHandler } from 'spillway/node'
import { openSharedLog } from 'spillway/shared'
import { listen } from './listen.ts'

const { log, port, capacity, readers } = workerData
const broker = createBroker({ capacity, log: openSharedLog(log, port) })
parentPort?.postMessage(await listen(createServer(toNodeHandler(broker))))
setInterval(() => Atomics.store(readers, 0, broker.status.subscriptions), 50)
