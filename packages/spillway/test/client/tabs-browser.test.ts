import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { Page } from 'playwright-core'
import { createBroker } from '../../src/core/broker.ts'
import { publishIndexes, serve, until } from '../support/http.ts'
import { noChromium, openContext, servePages } from '../support/pages.ts'

const skip = noChromium

const range = (from: number, upTo: number) => Array.from({ length: upTo - from + 1 }, (_, n) => from + n)

/** A server that can be taken down, and tabs of one browser that follow it. */
async function setup(t: TestContext) {
  const broker = createBroker({ capacity: 10_000 })
  t.after(() => broker.close())
  const handler = { retry: 20, heartbeat: 200, cors: '*' as const }
  let site = await serve(t, { broker, handler })
  const pages = await servePages(t)
  const context = await openContext(t)
  // The client's heartbeat is longer than tabs and server may be busy, so that no silence ends a connection.
  const open = async (from = 'latest') => {
    const page = await context.newPage()
    await page.goto(pages)
    // As text: the compiler would rewrite the import of a function.
    await page.evaluate(`(async () => {
      const { createTabsClient } = await import('/src/client/tabs.js')
      const client = createTabsClient({ url: ${JSON.stringify(site.url)}, heartbeat: 4000, firstWait: 20 })
      const subscription = client.subscribe({ from: ${JSON.stringify(from)} })
      await subscription.ready
      seen = []
      void (async () => {
        for await (const { index, gap } of subscription) seen.push(gap ?? index)
      })()
    })()`)
    return page
  }
  const restart = async (whileDown: () => Promise<void>) => {
    await site.stop()
    await whileDown()
    site = await serve(t, { broker, handler, port: site.port })
  }
  return { broker, open, restart, requests: () => site.exchanges.length }
}

async function has(page: Page, last: number): Promise<unknown[]> {
  let seen: unknown[] = []
  await until(
    async () => {
      seen = await page.evaluate<unknown[]>('seen')
      return seen.at(-1) === last
    },
    () => `${last} as the newest, got ${JSON.stringify(seen.slice(-3))}`,
  )
  return seen
}

test('three tabs of Chromium have one connection, and lose nothing when the one that holds it is closed', {
  skip,
}, async (t) => {
  const { broker, open, requests } = await setup(t)
  const first = await open()
  const tabs = [await open(), await open()]
  await publishIndexes(broker, 1, 500)
  for (const tab of [first, ...tabs]) assert.deepEqual(await has(tab, 500), range(1, 500))
  assert.equal(requests(), 1)
  // Batches are on their way while it goes.
  await Promise.all([publishIndexes(broker, 501, 1000), first.close()])
  await publishIndexes(broker, 1001, 1100)
  for (const tab of tabs) assert.deepEqual(await has(tab, 1100), range(1, 1100))
  await until(() => broker.status.subscriptions === 1, 'one connection')
  await tabs[0]?.goto('about:blank')
  await publishIndexes(broker, 1101, 1200)
  assert.deepEqual(await has(tabs[1] as Page, 1200), range(1, 1200))
  await until(() => broker.status.subscriptions === 1, 'one connection')
})

test('a tab of Chromium that is opened later gets what it asks for, and then shares', { skip }, async (t) => {
  const { broker, open } = await setup(t)
  const early = await open()
  await publishIndexes(broker, 1, 300)
  const [late, newest] = [await open('earliest'), await open()]
  await publishIndexes(broker, 301, 400)
  assert.deepEqual(await has(early, 400), range(1, 400))
  assert.deepEqual(await has(late, 400), range(1, 400))
  assert.deepEqual(await has(newest, 400), range(301, 400))
  await until(() => broker.status.subscriptions === 1, 'one connection')
})

test('tabs of Chromium go on after a restart of the server, over one connection', { skip }, async (t) => {
  const { broker, open, restart, requests } = await setup(t)
  const tabs = [await open(), await open(), await open()]
  await publishIndexes(broker, 1, 10)
  for (const tab of tabs) await has(tab, 10)
  await restart(() => publishIndexes(broker, 11, 20))
  await publishIndexes(broker, 21, 30)
  for (const tab of tabs) assert.deepEqual(await has(tab, 30), range(1, 30))
  assert.equal(requests(), 1)
})
