import assert from 'node:assert/strict'
import { test } from 'node:test'
import { build } from 'esbuild'
import { chromium } from 'playwright-core'
import { publishIndexes, serve, until } from '../support/http.ts'
import { browser } from '../support/runtimes.ts'

const executablePath = browser()
const skip = !executablePath && 'no Chromium'

/** Two ways of a page to follow a stream. Each calls `see(id, index)`. */
const clients = {
  EventSource: `const source = new EventSource(url)
    source.onmessage = ({ data, lastEventId }) => see(lastEventId, JSON.parse(data).index)`,
  '@microsoft/fetch-event-source': `library.fetchEventSource(url, {
    openWhenHidden: true,
    onmessage: ({ id, data }) => { if (data) see(id, JSON.parse(data).index) },
    onerror: () => 10,
  })`,
}

for (const [name, program] of Object.entries(clients)) {
  test(`${name} in Chromium gets each batch once, also across connections that are cut`, { skip }, async (t) => {
    const bundled = await build({
      stdin: { contents: `export * from '@microsoft/fetch-event-source'`, resolveDir: import.meta.dirname },
      bundle: true,
      format: 'iife',
      globalName: 'library',
      write: false,
    })
    const chrome = await chromium.launch({
      executablePath: executablePath as string,
      args: ['--no-sandbox', '--disable-background-networking'],
    })
    t.after(() => chrome.close())
    const site = await serve(t, { handler: { retry: 10, cors: '*' } })
    await publishIndexes(site.broker, 1, 5)
    const page = await chrome.newPage()
    const seen: unknown[] = []
    await page.exposeFunction('see', (...one: unknown[]) => void seen.push(one))
    await page.goto(`${site.url}/healthz`)
    await page.addScriptTag({ content: bundled.outputFiles[0]?.text as string })
    await page.evaluate(`(() => { const url = '/v1/events?from=earliest'; ${program} })()`)
    const arrived = (count: number) =>
      until(
        () => seen.length >= count,
        () => `${count} batches, got ${seen.length}`,
      )
    await arrived(5)
    for (let round = 1; round <= 2; round++) {
      for (const { response } of site.exchanges) response.socket?.destroy()
      await publishIndexes(site.broker, 5 * round + 1, 5 * round + 5)
      await arrived(5 * round + 5)
    }
    const { epoch } = site.broker.status
    assert.deepEqual(
      seen,
      Array.from({ length: 15 }, (_, n) => [`${epoch}:${n + 1}`, n + 1]),
    )
  })
}
