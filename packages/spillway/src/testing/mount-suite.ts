import assert from 'node:assert/strict'
import { type ClientRequest, type IncomingMessage, request } from 'node:http'
import { type TestContext, test } from 'node:test'
import { type AnyBroker, type Broker, createBroker } from '../core/broker.ts'
import { SpillwayError } from '../core/errors.ts'
import { everything } from '../core/rights.ts'
import type { HandlerOptions } from '../http/handler.ts'

/** Serves the faces of `broker` on 127.0.0.1 and gives its url, with whatever path stands before `/v1`. Ended with `t.after`. */
export type OpenMount = (broker: AnyBroker, options: HandlerOptions, t: TestContext) => Promise<string>

/** How long anything may take before a test fails, in milliseconds: much longer than on any machine that is only slow. */
const patience = 20_000

/**
 * What every mount of the HTTP faces must hold, as tests for `node:test` whose names start with `name`, over real sockets.
 */
export function mountSuite(name: string, open: OpenMount): void {
  const check = (promise: string, run: (given: Given) => Promise<void>, brokerOptions = {}): void => {
    test(`${name}: ${promise}`, { timeout: patience }, async (t) => {
      const broker = createBroker({ capacity: 1000, ...brokerOptions })
      // First what uses it: hooks run in the order of their making.
      const url = await open(broker, { heartbeat: 200, stallTimeout: 2000, onError: () => {} }, t)
      t.after(() => broker.close())
      await run({ broker, url, t })
    })
  }
  checkReading(check)
  checkPublishing(check)
  checkRefusals(check)
  checkLeaving(check)
}

interface Given {
  readonly broker: Broker
  readonly url: string
  readonly t: TestContext
}

type Check = (promise: string, run: (given: Given) => Promise<void>, brokerOptions?: object) => void

function checkReading(check: Check): void {
  check('a stream says where it stands at once, before anything is published', async ({ broker, url, t }) => {
    const stream = await follow(t, `${url}/v1/events`)
    assert.equal(stream.status, 200)
    assert.match(stream.headers['content-type'] ?? '', /^application\/x-ndjson/)
    assert.match(stream.headers['cache-control'] ?? '', /no-cache/)
    assert.deepEqual(await stream.next(), { open: { cursor: broker.status.cursor, oldest: null, newest: 0 } })
  })

  check('batches arrive in order, and a cursor resumes after them', async ({ broker, url, t }) => {
    await publish(broker, 1, 5)
    const stream = await follow(t, `${url}/v1/events?from=earliest&topic=T`)
    await stream.next()
    assert.deepEqual(await stream.indexes(5), [1, 2, 3, 4, 5])
    await publish(broker, 6, 8)
    assert.deepEqual(await stream.indexes(3), [6, 7, 8])
    const resumed = await follow(t, `${url}/v1/events?from=${broker.status.epoch}:6`)
    await resumed.next()
    assert.deepEqual(await resumed.indexes(2), [7, 8])
  })

  check('Last-Event-ID wins over where the url starts, in Server-Sent Events', async ({ broker, url, t }) => {
    await publish(broker, 1, 3)
    const headers = { accept: 'text/event-stream', 'last-event-id': `${broker.status.epoch}:2` }
    const stream = await follow(t, `${url}/v1/events?from=earliest`, headers)
    assert.match(stream.headers['content-type'] ?? '', /^text\/event-stream/)
    const block = await stream.text((text) => text.includes('data: '))
    assert.match(block, new RegExp(`id: ${broker.status.epoch}:3\\ndata: \\{"index":3,`))
  })

  check('a quiet stream gives signs of life', async ({ url, t }) => {
    const stream = await follow(t, `${url}/v1/events`)
    await stream.next()
    assert.ok('progress' in (await stream.next()))
  })

  check("Nomad's stream is served, too", async ({ broker, url, t }) => {
    await publish(broker, 1, 1)
    const stream = await follow(t, `${url}/v1/event/stream?topic=*`)
    assert.deepEqual(await stream.next(), {})
    assert.equal((await stream.next()).Index, 1)
  })

  check(
    'a reader that is too slow is told its loss, and the rest arrives',
    async ({ broker, url, t }) => {
      const stream = await follow(t, `${url}/v1/events?from=earliest`)
      await stream.next()
      stream.pause()
      const payload = 'x'.repeat(100_000)
      for (let n = 1; n <= 400; n++) {
        await broker.publish({ topic: 'T', type: 't', payload })
        await new Promise((resolve) => setImmediate(resolve))
      }
      stream.resume()
      let at = 0
      let gaps = 0
      while (at < 400) {
        const { gap, index } = await stream.next()
        if (gap) {
          gaps++
          assert.equal(gap.after, at)
          at = gap.before - 1
        } else {
          assert.equal(index, at + 1)
          at = index as number
        }
      }
      assert.ok(gaps > 0)
    },
    { capacity: 8 },
  )
}

function checkPublishing(check: Check): void {
  check('what is posted is published, payloads to the last digit', async ({ broker, url }) => {
    const reader = broker.subscribe()
    const event = '{"topic":"T","type":"t","payload":{"n":1600000000000000001,"b":"é😀"}}'
    const answer = await ask(`${url}/v1/events`, 'POST', event, { 'content-type': 'application/json' })
    assert.equal(answer.status, 200)
    assert.deepEqual(JSON.parse(answer.body), { index: 1, cursor: broker.status.cursor, batches: 1 })
    assert.deepEqual((await reader.next()).events[0]?.payload, { n: Number('1600000000000000001'), b: 'é😀' })
  })

  check('lines are posted as a batch each', async ({ broker, url }) => {
    const lines = '{"topic":"T","type":"t"}\n[{"topic":"T","type":"t"},{"topic":"T","type":"t"}]\n'
    const answer = await ask(`${url}/v1/events`, 'POST', lines, { 'content-type': 'application/x-ndjson' })
    assert.equal(JSON.parse(answer.body).batches, 2)
    assert.equal(broker.status.newestIndex, 2)
  })

  check('a publish that is repeated with its key is stored once', async ({ broker, url }) => {
    const headers = { 'content-type': 'application/json', 'idempotency-key': 'k' }
    for (const duplicate of [undefined, true]) {
      const answer = await ask(`${url}/v1/events`, 'POST', '{"topic":"T","type":"t"}', headers)
      assert.equal(JSON.parse(answer.body).duplicate, duplicate)
    }
    assert.equal(broker.status.newestIndex, 1)
  })

  check('a body that is too large is refused, and nothing is stored', async ({ broker, url }) => {
    const body = JSON.stringify({ topic: 'T', type: 't', payload: 'x'.repeat(2 ** 21) })
    const answer = await ask(`${url}/v1/events`, 'POST', body, { 'content-type': 'application/json' })
    assert.equal(answer.status, 413)
    assert.equal(broker.status.newestIndex, 0)
  })
}

function checkRefusals(check: Check): void {
  const authorize = ({ token }: { token: string }) => {
    if (token !== 'right') throw new SpillwayError('UNAUTHORIZED', 'This token is not valid.')
    return everything
  }
  check(
    'a token is asked for, and a refusal is a problem document',
    async ({ url, t }) => {
      const refused = await ask(`${url}/v1/events`, 'GET')
      assert.equal(refused.status, 401)
      assert.match(refused.headers['content-type'] ?? '', /^application\/problem\+json/)
      assert.equal(JSON.parse(refused.body).code, 'UNAUTHORIZED')
      const stream = await follow(t, `${url}/v1/events`, { authorization: 'Bearer right' })
      assert.equal(stream.status, 200)
    },
    { authorize },
  )

  check('bad queries and methods are refused with what is wrong', async ({ url }) => {
    const query = await ask(`${url}/v1/events?form=latest`, 'GET')
    assert.equal(query.status, 400)
    assert.match(JSON.parse(query.body).detail, /unknown parameter "form"/)
    const method = await ask(`${url}/v1/events`, 'DELETE')
    assert.equal(method.status, 405)
    assert.equal(method.headers.allow, 'GET, POST')
  })

  check('status and health are answered', async ({ url }) => {
    assert.equal(JSON.parse((await ask(`${url}/v1/status`, 'GET')).body).newest, 0)
    assert.equal((await ask(`${url}/healthz`, 'GET')).body, 'ok\n')
  })
}

function checkLeaving(check: Check): void {
  check('a reader that leaves is forgotten', async ({ broker, url, t }) => {
    const streams = await Promise.all([1, 2, 3].map(() => follow(t, `${url}/v1/events`)))
    for (const stream of streams) await stream.next()
    assert.equal(broker.status.subscriptions, 3)
    for (const stream of streams) stream.close()
    await publish(broker, 1, 3)
    await until(() => broker.status.subscriptions === 0)
  })

  check('the end of the broker is told as the last word', async ({ broker, url, t }) => {
    const stream = await follow(t, `${url}/v1/events`)
    await stream.next()
    await broker.close()
    assert.equal((await stream.next()).closed?.code, 'SHUTDOWN')
    await assert.rejects(stream.next(), /ended/)
  })
}

async function publish(broker: Broker, first: number, last: number): Promise<void> {
  for (let n = first; n <= last; n++) await broker.publish({ topic: 'T', type: 't', key: String(n) })
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve))
}

interface Message {
  readonly index?: number
  readonly Index?: number
  readonly gap?: { readonly after: number; readonly before: number }
  readonly closed?: { readonly code: string }
}

/** A stream as it is read by a plain client. */
class Stream {
  readonly #response: IncomingMessage
  readonly #request: ClientRequest
  readonly #chunks: AsyncIterator<string>
  #text = ''

  constructor(outgoing: ClientRequest, response: IncomingMessage) {
    this.#request = outgoing
    this.#response = response.setEncoding('utf8')
    this.#chunks = response[Symbol.asyncIterator]()
  }

  get status(): number | undefined {
    return this.#response.statusCode
  }

  get headers(): Record<string, string | undefined> {
    return this.#response.headers as Record<string, string | undefined>
  }

  /** What has come until it is `enough`. */
  async text(enough: (text: string) => boolean): Promise<string> {
    while (!enough(this.#text)) {
      const { done, value } = await this.#chunks.next()
      if (done) throw new Error(`The stream ended: ${this.#text}`)
      this.#text += value
    }
    return this.#text
  }

  async next(): Promise<Message> {
    const text = await this.text((text) => text.includes('\n'))
    const end = text.indexOf('\n')
    this.#text = text.slice(end + 1)
    return JSON.parse(text.slice(0, end))
  }

  /** The indexes of the next batches; signs of life are passed over. */
  async indexes(count: number): Promise<number[]> {
    const found: number[] = []
    while (found.length < count) {
      const { index } = await this.next()
      if (index !== undefined) found.push(index)
    }
    return found
  }

  pause(): void {
    this.#response.socket.pause()
  }

  resume(): void {
    this.#response.socket.resume()
  }

  close(): void {
    this.#request.destroy()
  }
}

function follow(t: TestContext, url: string, headers: Record<string, string> = {}): Promise<Stream> {
  return new Promise((resolve, reject) => {
    const wanted = { accept: 'application/x-ndjson', ...headers }
    const outgoing = request(url, { headers: wanted, agent: false }, (response) => {
      response.on('error', () => {})
      resolve(new Stream(outgoing, response))
    })
    outgoing.on('error', reject).end()
    t.after(() => outgoing.destroy())
  })
}

interface Answer {
  readonly status: number | undefined
  readonly headers: Record<string, string | undefined>
  readonly body: string
}

function ask(url: string, method: string, body?: string, headers: Record<string, string> = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { method, headers, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk) => {
        text += chunk
      })
      response.on('end', () => {
        resolve({
          status: response.statusCode,
          headers: response.headers as Record<string, string | undefined>,
          body: text,
        })
      })
    })
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}
