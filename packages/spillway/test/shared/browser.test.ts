import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { noChromium, openContext, servePages } from '../support/pages.ts'
import type { Seen } from './browser-worker.ts'

const skip = noChromium

/** A page that is cross-origin isolated, and calls functions of browser-page.ts. `before`: what it runs before all others. */
async function open(t: TestContext, before = '') {
  const url = await servePages(t, { isolated: true })
  const page = await (await openContext(t)).newPage()
  await page.addInitScript(before)
  await page.goto(url)
  assert.equal(await page.evaluate('crossOriginIsolated'), true)
  return <T>(name: string, ...args: unknown[]): Promise<T> => {
    const call = `${name}(...${JSON.stringify(args)})`
    // As text: the compiler would rewrite the import of a function.
    return page.evaluate<T>(`import('/test/shared/browser-page.js').then((page) => page.${call})`)
  }
}

const upTo = (last: number) => Array.from({ length: last }, (_, n) => n + 1)

/** How a page without `Atomics.waitAsync` begins, as in Firefox before 145. */
const oldFirefox = 'delete Atomics.waitAsync'

for (const [before, how] of [
  ['', 'by the memory that they wait for'],
  [oldFirefox, 'over a BroadcastChannel'],
] as const) {
  test(`workers get every batch of their page once, in order, and are woken ${how}`, { skip }, async (t) => {
    const call = await open(t, before)
    const seen = await call<Seen[]>('pageToWorkers', 20, 250, ['loop', 'blocking'])
    const all = { indexes: upTo(5000), gaps: [], lost: 0, error: null }
    // A loop ends in silence when the buffer is closed, `nextSync` says why.
    assert.deepEqual(seen, [all, { ...all, error: 'CLOSED' }])
  })

  test(`a page gets every batch of its worker once, in order, and is woken ${how}`, { skip }, async (t) => {
    const call = await open(t, before)
    assert.deepEqual(await call('workerToPage', 5000), upTo(5000))
  })
}

test('a page hears a bell that is rung at once, before the browser knows that it listens', { skip }, async (t) => {
  const call = await open(t, oldFirefox)
  assert.equal(await call('rungAtOnce', 200), 200)
})

test('a worker that its page has lapped is told exactly which batches it lost', { skip }, async (t) => {
  const call = await open(t)
  const { indexes, gaps, lost, error } = await call<Seen>('lapped', 3000)
  const [first = 0] = indexes
  assert.equal(error, null)
  assert.ok(first > 1, 'it was lapped')
  assert.deepEqual(gaps, [{ after: 0, before: first, reason: 'lag' }])
  assert.equal(lost, first - 1)
  assert.deepEqual(indexes, upTo(3000).slice(first - 1))
})

test('a page may not block, and is told what to call', { skip }, async (t) => {
  const call = await open(t)
  const { code, message } = await call<{ code: string; message: string }>('blockingPage')
  assert.equal(code, 'INVALID')
  assert.match(message, /Use next\(\)/)
})
