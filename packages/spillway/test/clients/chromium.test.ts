import assert from 'node:assert/strict'
import { after, type TestContext, test } from 'node:test'
import { type Browser, chromium } from 'playwright-core'
import { createBroker } from '../../src/core/broker.ts'
import { publishIndexes, type Site, serve, until } from '../support/http.ts'
import { injections } from '../support/injections.ts'
import { findProgram } from '../support/programs.ts'
import { restartable, twoHeartbeats } from '../support/restarts.ts'

const executablePath = findProgram('chromium', 'chromium-browser', 'google-chrome') ?? ''
const skip = executablePath === '' ? 'Chromium is not installed' : false

let browser: Promise<Browser> | undefined
after(async () => (await browser)?.close())

interface Seen {
  readonly type: string
  readonly data: string
  readonly lastEventId: string
}

/** A page of the site's own origin that follows `path` and keeps what it gets. */
async function follow(t: TestContext, { url }: Pick<Site, 'url'>, path: string) {
  browser ??= chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-background-networking'] })
  const context = await (await browser).newContext()
  t.after(() => context.close())
  const page = await context.newPage()
  await page.route('**/page', (route) =>
    route.fulfill({ contentType: 'text/html', body: '<!doctype html><title>t</title>' }),
  )
  await page.goto(`${url}/page`)
  await page.unrouteAll()
  await page.evaluate(`
    seen = []
    source = new EventSource(${JSON.stringify(path)})
    for (const name of ['message', 'gap', 'reset', 'closed']) {
      source.addEventListener(name, ({ type, data, lastEventId }) => seen.push({ type, data, lastEventId }))
    }`)
  const seen = () => page.evaluate('seen') as Promise<Seen[]>
  const state = () => page.evaluate('source.readyState') as Promise<number>
  /** All that the page has got, once it is as many. */
  const all = async (count: number) => {
    let got: Seen[] = []
    await until(
      async () => {
        got = await seen()
        return got.length >= count
      },
      () => `${count} messages, got ${JSON.stringify(got.slice(-5))}`,
    )
    return got
  }
  return { page, seen, state, all }
}

const indexesOf = (messages: readonly Seen[]) =>
  messages.map(({ type, data }) => (type === 'message' ? (JSON.parse(data) as { index: number }).index : type))

const upTo = (last: number) => Array.from({ length: last }, (_, n) => n + 1)

test('EventSource in Chromium resumes exactly after every restart of the server', { skip }, async (t) => {
  const running = await restartable(t)
  const { broker, site } = running
  const { state, all, seen } = await follow(t, site, '/v1/events')
  await until(async () => (await state()) === 1, 'it is open')
  let index = 0
  for (let round = 0; round < 3; round++) {
    await publishIndexes(broker, index + 1, index + 3)
    index += 3
    assert.deepEqual(indexesOf(await all(index)), upTo(index))
    await running.down()
    await publishIndexes(broker, index + 1, index + 2)
    await running.up()
    index += 2
    assert.deepEqual(indexesOf(await all(index)), upTo(index))
  }
  assert.equal((await seen()).at(-1)?.lastEventId, `${broker.status.epoch}:${index}`)
})

test('EventSource in Chromium that saw no event resumes from the last heartbeat', { skip }, async (t) => {
  const running = await restartable(t)
  const { all } = await follow(t, running.site, '/v1/events?topic=End')
  await until(() => running.broker.status.subscriptions === 1, 'it is open')
  await publishIndexes(running.broker, 1, 5)
  await twoHeartbeats(running.site)
  await running.down()
  await running.broker.publish({ topic: 'End', type: 'Ended' })
  await running.up()
  assert.deepEqual(indexesOf(await all(1)), [6])
  const again = running.site.exchanges.find(({ request }) => request.url?.startsWith('/v1/events'))
  assert.equal(again?.request.headers['last-event-id'], `${running.broker.status.epoch}:5`)
})

test('EventSource in Chromium is told `reset` when the server comes back without its history', { skip }, async (t) => {
  const running = await restartable(t)
  const old = running.broker
  await publishIndexes(old, 1, 3)
  const { all } = await follow(t, running.site, '/v1/events?from=earliest')
  assert.deepEqual(indexesOf(await all(3)), [1, 2, 3])
  await running.down()
  const broker = createBroker()
  await publishIndexes(broker, 1, 2)
  await running.up(broker)
  const got = await all(6)
  assert.deepEqual(indexesOf(got), [1, 2, 3, 'reset', 1, 2])
  assert.deepEqual(JSON.parse(got[3]?.data as string), {
    reset: { after: 3, before: 1, reason: 'epoch', cursor: `${broker.status.epoch}:0` },
  })
  await old.close()
})

test('EventSource in Chromium gets one message for one event, whatever the event holds', { skip }, async (t) => {
  const site = await serve(t)
  const { all, state } = await follow(t, site, '/v1/events?from=earliest')
  for (const { event } of injections) await site.broker.publish(event)
  const got = await all(injections.length)
  assert.deepEqual(indexesOf(got), upTo(injections.length))
  for (const [position, { payload }] of injections.entries()) {
    const { events } = JSON.parse(got[position]?.data as string) as { events: { payload: unknown }[] }
    assert.deepEqual(
      events.map((event) => event.payload),
      [payload],
    )
  }
  assert.equal(await state(), 1)
})

test('a page reads NDJSON by fetch and publishes', { skip }, async (t) => {
  const site = await serve(t)
  const { page, all } = await follow(t, site, '/v1/events')
  await until(() => site.broker.status.subscriptions === 1, 'it is open')
  const answer = await page.evaluate(`(async () => {
    const headers = { 'content-type': 'application/json' }
    const published = await fetch('/v1/events', { method: 'POST', headers, body: '{"topic":"T","type":"t","payload":1600000000000000001}' })
    const { index } = await published.json()
    const response = await fetch('/v1/events?from=earliest', { headers: { accept: 'application/x-ndjson' } })
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
    let text = ''
    while (text.split('\\n').length < 3) text += (await reader.read()).value
    await reader.cancel()
    return { index, line: text.split('\\n')[1] }
  })()`)
  const { index, line } = answer as { index: number; line: string }
  assert.equal(index, 1)
  assert.match(line, /"payload":1600000000000000001\}\]\}$/)
  assert.match((await all(1))[0]?.data ?? '', /1600000000000000001/)
  await until(() => site.broker.status.subscriptions === 1, 'the cancelled reader is gone', 1000)
})
