import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createBroker } from '../../src/core/broker.ts'
import { toNodeHandler } from '../../src/http/node.ts'
import { ask, post, serve } from '../support/http.ts'
import { withCode } from '../support/waiting.ts'

const preflight = {
  method: 'OPTIONS',
  headers: { origin: 'https://app.example', 'access-control-request-method': 'POST' },
}

test('without cors no page of another origin is admitted', async (t) => {
  const site = await serve(t)
  const { status, headers } = await ask(site, '/v1/events', preflight)
  assert.equal(status, 405)
  assert.equal(headers['access-control-allow-origin'], undefined)
})

test('an origin that is named may use all faces, with its cookies', async (t) => {
  const site = await serve(t, { handler: { cors: ['https://app.example'] } })
  const { status, headers } = await ask(site, '/v1/events', preflight)
  assert.equal(status, 200)
  assert.equal(headers['access-control-allow-origin'], 'https://app.example')
  assert.equal(headers['access-control-allow-credentials'], 'true')
  assert.match(headers['access-control-allow-headers'] as string, /authorization.*idempotency-key/)
  const published = await post(site, { topic: 'T', type: 't' }, { origin: 'https://app.example' })
  assert.equal(published.headers['access-control-allow-origin'], 'https://app.example')
  assert.equal(published.headers.vary, 'origin')
  const refused = await ask(site, '/v1/events?from=x', { headers: { origin: 'https://app.example' } })
  assert.equal(refused.status, 400)
  assert.equal(refused.headers['access-control-allow-origin'], 'https://app.example', 'refusals can be read, too')
  const unknown = await ask(site, '/v1/evnets', { headers: { origin: 'https://app.example' } })
  assert.equal(unknown.status, 404)
  assert.equal(unknown.headers['access-control-allow-origin'], 'https://app.example')
})

test('an origin that is not named is not admitted', async (t) => {
  const site = await serve(t, { handler: { cors: ['https://app.example'] } })
  for (const origin of ['https://evil.example', 'null', 'https://app.example.evil.example', 'http://app.example']) {
    const { headers } = await ask(site, '/v1/events', { ...preflight, headers: { ...preflight.headers, origin } })
    assert.equal(headers['access-control-allow-origin'], undefined)
    assert.equal(headers.vary, 'origin')
  }
})

test('any origin may be admitted, without cookies', async (t) => {
  const site = await serve(t, { handler: { cors: '*' } })
  const { headers } = await ask(site, '/v1/status', { headers: { origin: 'https://any.example' } })
  assert.equal(headers['access-control-allow-origin'], '*')
  assert.equal(headers['access-control-allow-credentials'], undefined)
})

test('what is no origin is refused', () => {
  const neverSent = [['https://App.example'], ['https://app.example:443'], ['http://[::1'], ['http://user@app.example']]
  for (const cors of ['https://app.example', ['app.example'], ['https://app.example/'], ['*'], 7, ...neverSent]) {
    assert.throws(
      () => toNodeHandler(createBroker(), { cors: cors as never }),
      withCode('CONFIG', /cors must be "\*" or/),
    )
  }
})
