import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createBroker } from '../../../src/core/broker.ts'
import { toFetchHandler } from '../../../src/http/fetch.ts'
import { until } from '../../support/http.ts'
import { withCode } from '../../support/waiting.ts'

test('a peer that went away before it was answered is forgotten', async (t) => {
  const broker = createBroker()
  t.after(() => broker.close())
  const handler = toFetchHandler(broker)
  const controller = new AbortController()
  controller.abort()
  const early = await handler(new Request('http://server/v1/events', { signal: controller.signal }))
  assert.equal(early.body, null)
  const later = new AbortController()
  const answer = handler(new Request('http://server/v1/events', { signal: later.signal }))
  later.abort()
  await (await answer).body?.cancel()
  const streams = async () => {
    const status = await handler(new Request('http://server/v1/status'))
    return ((await status.json()) as { streams: number }).streams
  }
  await until(async () => (await streams()) === 0 && broker.status.subscriptions === 0, 'nobody reads')
})

test('a body that nobody reads holds a bounded number of bytes', async (t) => {
  const broker = createBroker({ capacity: 8 })
  t.after(() => broker.close())
  const response = await toFetchHandler(broker)(new Request('http://server/v1/events?from=earliest'))
  const reader = (response.body as ReadableStream<Uint8Array>).getReader()
  for (let n = 1; n <= 200; n++) {
    await broker.publish({ topic: 'T', type: 't', payload: 'x'.repeat(100_000) })
    await new Promise((resolve) => setImmediate(resolve))
  }
  let text = ''
  while (!text.includes('"index":200,')) text += new TextDecoder().decode((await reader.read()).value)
  assert.ok(text.length < 12 * 100_300, `${text.length} bytes of 200 batches came`)
  assert.match(text, /event: gap/)
  await reader.cancel()
  assert.equal(broker.status.subscriptions, 0)
})

test('a prefix that makes no sense is refused', () => {
  for (const prefix of ['api', '/api/', '/', 7]) {
    assert.throws(() => toFetchHandler(createBroker(), { prefix: prefix as never }), withCode('CONFIG', /prefix must/))
  }
})

test('the body of a request that was aborted ends for whoever reads it', async (t) => {
  const broker = createBroker()
  t.after(() => broker.close())
  const controller = new AbortController()
  const response = await toFetchHandler(broker)(new Request('http://server/v1/events', { signal: controller.signal }))
  const reader = (response.body as ReadableStream<Uint8Array>).getReader()
  await reader.read()
  const reading = reader.read()
  controller.abort()
  assert.equal((await reading).done, true)
  assert.equal(broker.status.subscriptions, 0)
})
