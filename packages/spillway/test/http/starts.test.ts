import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { ManualClock } from '../support/clock.ts'
import { ask, type Site, serve } from '../support/http.ts'
import { followNdjson } from '../support/streams.ts'
import { turn } from '../support/waiting.ts'

const publish = (site: Site) => site.broker.publish({ topic: 'Order', type: 'OrderPlaced' })

/** The index of the first batch that a reader of `query` gets. */
async function firstIndex(t: TestContext, site: Site, query: string): Promise<number> {
  const { next, stream } = await followNdjson(t, site, query)
  await next()
  const { index } = (await next()) as { index: number }
  stream.close()
  return index
}

test('a reader may start with the newest so many batches', async (t) => {
  const site = await serve(t, { brokerOptions: { capacity: 4 } })
  for (let n = 1; n <= 10; n++) await publish(site)
  assert.equal(await firstIndex(t, site, '?last=2'), 9)
  assert.equal(await firstIndex(t, site, '?last=100'), site.broker.status.oldestIndex)
  const { next, stream } = await followNdjson(t, site, '?last=0')
  await next()
  await publish(site)
  assert.equal(((await next()) as { index: number }).index, 11)
  stream.close()
})

test('a reader may start at a time, with any offset', async (t) => {
  const clock = new ManualClock()
  const site = await serve(t, { brokerOptions: { clock } })
  await publish(site)
  await turn()
  clock.advance(5000)
  const time = new Date(clock.now())
  await publish(site)
  const shifted = new Date(time.getTime() + 2 * 3_600_000).toISOString().replace('Z', '%2B02:00')
  assert.equal(await firstIndex(t, site, `?from=${time.toISOString()}`), 2)
  assert.equal(await firstIndex(t, site, `?from=${shifted}`), 2)
  // A plus sign that was not escaped means a space.
  assert.equal(await firstIndex(t, site, `?from=${shifted.replace('%2B', '+')}`), 2)
  assert.equal(await firstIndex(t, site, '?from=1999-12-31T23:59:59.5Z'), 1)
})

test('a reader that asks for an exact start is refused with what is kept in place of a gap', async (t) => {
  const site = await serve(t, { brokerOptions: { capacity: 2 } })
  for (let n = 1; n <= 10; n++) await publish(site)
  const { epoch } = site.broker.status
  for (const from of [`${epoch}:3`, 'other:3', `${epoch}:99`]) {
    const { status, json } = await ask(site, `/v1/events?from=${from}&exact=true`)
    assert.deepEqual([status, json.code], [410, 'NOT_KEPT'])
    assert.match(json.detail as string, /Kept: 8 to 10\.$/)
  }
  assert.equal(await firstIndex(t, site, `?from=${epoch}:8&exact=true`), 9)
})

test('starts that make no sense are refused, and say why', async (t) => {
  const site = await serve(t)
  for (const [query, detail] of [
    ['last=-1', 'last must be an integer from 0 to 9007199254740991, got "-1".'],
    ['last=1&from=latest', 'from and last exclude each other. Give one of them.'],
    ['exact=yes', 'exact must be true or false, got "yes".'],
    ['from=2026-13-01T00:00:00Z', 'from must be a time that exists, from 1970 on, got "2026-13-01T00:00:00Z".'],
    ['from=2026-02-31T00:00:00Z', 'from must be a time that exists, from 1970 on, got "2026-02-31T00:00:00Z".'],
    ['from=2026-11-24', 'cursor must be one that this server or broker gave out, got "2026-11-24".'],
  ] as const) {
    const { status, json } = await ask(site, `/v1/events?${query}`)
    assert.deepEqual([status, json.detail], [400, detail])
  }
})
