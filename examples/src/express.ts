// An Express app whose orders can be followed at /v1/events. PORT says where it listens.
import type { AddressInfo } from 'node:net'
import express from 'express'
import { createBroker } from 'spillway'
import { toNodeHandler } from 'spillway/node'

const broker = createBroker()
const app = express()
app.use(toNodeHandler(broker))
app.post('/orders/:id', async (request, response) => {
  response.json({ index: await broker.publish({ topic: 'Order', type: 'OrderPlaced', key: request.params.id }) })
})
const server = app.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
})
