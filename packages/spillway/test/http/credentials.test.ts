import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { WebSocket, WebSocketServer } from 'ws'
import { createBroker } from '../../src/core/broker.ts'
import { SpillwayError } from '../../src/core/errors.ts'
import { everything } from '../../src/core/rights.ts'
import { toNodeHandler } from '../../src/http/node.ts'
import { Tickets, ticketLife } from '../../src/http/tickets.ts'
import { attachWebSocket } from '../../src/http/websocket.ts'
import { ask, serve } from '../support/http.ts'
import { withCode } from '../support/waiting.ts'

const authorize = ({ token }: { token: string }) => {
  if (token !== 'right') throw new SpillwayError('UNAUTHORIZED', 'This token is not valid.')
  return everything
}
const brokerOptions = { authorize }
const withToken = { authorization: 'Bearer right' }

/** The status of a stream that is asked for, without reading it. */
async function follow(url: string, headers: Record<string, string> = {}): Promise<number> {
  const controller = new AbortController()
  const { status } = await fetch(url, { headers, signal: controller.signal })
  controller.abort()
  return status
}

test('a ticket stands for the token that it was given for, once', async (t) => {
  const site = await serve(t, { brokerOptions })
  const { status, json } = await ask(site, '/v1/tickets', { method: 'POST', headers: withToken })
  assert.equal(status, 200)
  assert.equal(json.expiresIn, 30)
  const url = `${site.url}/v1/events?ticket=${json.ticket}`
  assert.equal(await follow(url), 200)
  assert.equal(await follow(url), 401)
  assert.equal(await follow(`${site.url}/v1/events?ticket=guessed`), 401)
})

test('a ticket for a token that is not valid opens nothing, and none is given without a token', async (t) => {
  const site = await serve(t, { brokerOptions })
  const wrong = { authorization: 'Bearer wrong' }
  const { json } = await ask(site, '/v1/tickets', { method: 'POST', headers: wrong })
  assert.equal(await follow(`${site.url}/v1/events?ticket=${json.ticket}`), 401)
  assert.equal((await ask(site, '/v1/tickets', { method: 'POST' })).status, 401)
  assert.equal((await ask(site, '/v1/tickets')).status, 405)
})

test('a ticket that was given over HTTP opens a WebSocket', async (t) => {
  const broker = createBroker({ authorize })
  const http = createServer(toNodeHandler(broker))
  const sockets = new WebSocketServer({ server: http })
  attachWebSocket(broker, sockets)
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  const { port } = http.address() as AddressInfo
  t.after(async () => {
    for (const socket of sockets.clients) socket.terminate()
    http.close()
    await broker.close()
  })
  const { json } = await ask({ port }, '/v1/tickets', { method: 'POST', headers: withToken })
  for (const first of ['open', 'closed']) {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/v1/events`)
    socket.on('open', () => socket.send(JSON.stringify({ subscribe: `ticket=${json.ticket}` })))
    const line = await new Promise((resolve) => socket.on('message', resolve))
    assert.deepEqual(Object.keys(JSON.parse(String(line))), [first])
    socket.terminate()
  }
})

test('tickets end after half a minute, and beyond 10,000 none is given, so that nobody loses one', () => {
  const tickets = new Tickets()
  const late = tickets.issue('a', 0)
  const inTime = tickets.issue('a', 1)
  assert.equal(tickets.take(late, ticketLife), undefined)
  assert.equal(tickets.take(inTime, ticketLife), 'a')
  const first = tickets.issue('first', 1)
  for (let n = 1; n < 10_000; n++) tickets.issue(`token ${n % 200}`, 1)
  assert.throws(() => tickets.issue('one more', 2), withCode('OVERLOADED', /10000 tickets are out/))
  assert.equal(tickets.take(first, 2), 'first')
  tickets.issue('one more', 2)
  tickets.issue('much later', ticketLife + 1)
  for (let n = 0; n < 100; n++) tickets.issue('greedy', ticketLife + 1)
  assert.throws(() => tickets.issue('greedy', ticketLife + 1), withCode('OVERLOADED', /100 tickets of this token/))
  tickets.issue('another', ticketLife + 1)
})

test('a cookie is looked at where it is named, and after the headers', async (t) => {
  const site = await serve(t, { brokerOptions, handler: { cookie: 'token' } })
  const url = `${site.url}/v1/events`
  assert.equal(await follow(url, { cookie: 'a=b; token=right; token=wrong' }), 200)
  assert.equal(await follow(url, { cookie: 'xtoken=right' }), 401)
  assert.equal(await follow(url, { cookie: 'token=right', authorization: 'Bearer wrong' }), 401)
  const other = await serve(t, { brokerOptions })
  assert.equal(await follow(`${other.url}/v1/events`, { cookie: 'token=right' }), 401)
  assert.throws(() => toNodeHandler(createBroker(), { cookie: 'a b' }), withCode('CONFIG', /cookie must be the name/))
})
