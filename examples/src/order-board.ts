// Serves the board of examples/order-board, built by `vite build`, with orders that come and move on. PORT says where.
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import express from 'express'
import { createBroker } from 'spillway'
import { sqliteLog } from 'spillway/log/sqlite'
import { toNodeHandler } from 'spillway/node'

interface Topics {
  Order: { item: string; stage: 'placed' | 'paid' | 'shipped' } | null
}

const { PORT = '0', DATA = 'order-board.db' } = process.env
const broker = createBroker<Topics>({ log: await sqliteLog({ path: DATA, capacity: 10_000 }) })
const app = express()
app.use(toNodeHandler(broker))
app.use(express.static(fileURLToPath(new URL('../order-board/dist', import.meta.url))))
const server = app.listen(Number(PORT), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`)
})

const items = ['nails', 'a hammer', 'timber', 'paint']
let next = broker.status.newestIndex
const timer = setInterval(async () => {
  const number = ++next
  const item = items[number % items.length] as string
  const move = (order: number, type: string, stage: 'placed' | 'paid' | 'shipped') =>
    ({ topic: 'Order', type, key: `A${order}`, payload: { item, stage } }) as const
  await broker.publish([
    move(number, 'OrderPlaced', 'placed'),
    move(number - 2, 'OrderPaid', 'paid'),
    move(number - 4, 'OrderShipped', 'shipped'),
    { topic: 'Order', type: 'OrderDelivered', key: `A${number - 8}`, payload: null },
  ])
}, 250)

process.once('SIGTERM', async () => {
  clearInterval(timer)
  server.close()
  await broker.close()
  // Those who come back on a connection that still stands would keep the process.
  setTimeout(() => server.closeAllConnections(), 500)
})
