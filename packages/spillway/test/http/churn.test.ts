import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { test } from 'node:test'
import { handles, handlesMoreThan } from '../support/handles.ts'
import { ask, publishIndexes, serve, until } from '../support/http.ts'
import { type Random, seededRandom } from '../support/random.ts'
import { get, RawClient } from '../support/raw.ts'

/** When a client leaves. */
const moments = ['connected', 'half a request', 'request', 'first bytes', 'replay', 'live'] as const

const targets = [
  ['/v1/events?from=earliest', 'text/event-stream'],
  ['/v1/events?from=earliest', 'application/x-ndjson'],
  ['/v1/events', 'text/event-stream'],
  ['/v1/event/stream', '*/*'],
  ['/v1/event/stream?index=99999', '*/*'],
  ['/v1/status', '*/*'],
] as const

/** Connects, goes as far as chance will have it, and leaves. */
function visit(port: number, random: Random): Promise<void> {
  const moment = random.pick(moments)
  const [path, accept] = random.pick(targets)
  const request = get(path, [`Accept: ${accept}`])
  const cut = random.below(request.length)
  const wanted = moment === 'replay' ? 1 + random.below(200_000) : moment === 'live' ? 1 + random.below(400) : 1
  const leave = random.pick(['destroy', 'end', 'resetAndDestroy'] as const)
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    let bytes = 0
    socket.on('close', () => resolve())
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ECONNRESET' && error.code !== 'EPIPE') reject(error)
    })
    socket.on('connect', () => {
      if (moment !== 'connected') socket.write(moment === 'half a request' ? request.slice(0, cut) : request)
      if (moment === 'connected' || moment === 'half a request' || moment === 'request') {
        if (random.oneIn(2)) socket[leave]()
        else setImmediate(() => socket[leave]())
      }
    })
    socket.on('data', (chunk) => {
      bytes += chunk.length
      // What is short, or was read whole, never brings as much as was wanted.
      if (bytes >= wanted || path === '/v1/status' || moment === 'replay') socket[leave]()
    })
  })
}

function memory(): number {
  globalThis.gc?.()
  globalThis.gc?.()
  return process.memoryUsage().heapUsed
}

test('10,000 clients that come and go at any moment leave nothing behind', async (t) => {
  const random = seededRandom('churn')
  const site = await serve(t, { brokerOptions: { capacity: 2000 }, handler: { heartbeat: 30_000 } })
  await publishIndexes(site.broker, 1, 2000)
  const gone = async () => {
    await until(
      () => site.broker.status.subscriptions === 0,
      () => `${site.broker.status.subscriptions} subscriptions`,
    )
    const connections = () => new Promise<number>((resolve) => site.server.getConnections((_, count) => resolve(count)))
    await until(async () => (await connections()) === 0, 'no connection is left')
    await until(() => handles().TCPSocketWrap === undefined, 'no socket is left')
  }
  const churn = async (visits: number) => {
    let left = visits
    let publishing = true
    const publisher = (async () => {
      while (publishing) {
        await site.broker.publish({ topic: 'Tick', type: 'Ticked', payload: 'x'.repeat(100) })
        await new Promise((resolve) => setImmediate(resolve))
      }
    })()
    await Promise.all(
      Array.from({ length: 40 }, async () => {
        while (left-- > 0) {
          await visit(site.port, random)
          site.exchanges.length = 0
        }
      }),
    )
    publishing = false
    await publisher
    await gone()
  }
  await churn(1000)
  const handlesBefore = handles()
  const heapBefore = memory()
  await churn(10_000)
  assert.equal((await ask(site, '/v1/status')).json.streams, 0)
  assert.equal(site.broker.status.subscriptions, 0)
  site.exchanges.length = 0
  await gone()
  await until(
    () => handlesMoreThan(handlesBefore).length === 0,
    () => `no more handles than before; ${handlesMoreThan(handlesBefore)}`,
  )
  const grown = memory() - heapBefore
  assert.ok(grown < 2 ** 20, `the heap grew by ${grown} bytes`)
  assert.deepEqual(site.errors, [])
})

test('what is asked for behind a stream on one connection is not opened, and ends with the connection', async (t) => {
  const site = await serve(t)
  for (const path of ['/v1/events', '/v1/event/stream']) {
    const client = await RawClient.open(t, site.port, get(path).repeat(100))
    await client.bodyWith(path === '/v1/events' ? 'id: ' : '{}')
    // The last of what the server would read of it; a request on another connection is served after it.
    for (let n = 0; n < 20; n++) await ask(site, '/healthz')
    assert.equal(site.broker.status.subscriptions, 1)
    client.socket.destroy()
    await until(
      () => site.broker.status.subscriptions === 0,
      () => `${site.broker.status.subscriptions} subscriptions are left`,
      1000,
    )
    assert.equal((await ask(site, '/v1/status')).json.streams, 0)
  }
})

test('a connection on which thousands wait behind a stream is closed', async (t) => {
  const site = await serve(t)
  const client = await RawClient.open(t, site.port, get('/v1/events'))
  await client.bodyWith('id: ')
  client.send(get('/v1/status').repeat(5000))
  await until(() => client.closed, 'the connection is closed')
  await until(() => site.broker.status.subscriptions === 0, 'its stream is gone', 1000)
})

test('requests sent at once on one connection are answered in their order, and the last one may be a stream', async (t) => {
  const site = await serve(t)
  const client = await RawClient.open(t, site.port, get('/healthz') + get('/v1/status') + get('/v1/event/stream'))
  await until(
    () => /ok\n.*"newest":0.*\{\}\n/s.test(client.text),
    () => `three answers in order, got ${client.text}`,
  )
  assert.equal(site.broker.status.subscriptions, 1)
})
