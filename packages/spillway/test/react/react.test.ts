import assert from 'node:assert/strict'
import path from 'node:path'
import { test } from 'node:test'
import { build } from 'esbuild'
import { chromium } from 'playwright-core'
import { serve, until } from '../support/http.ts'
import { browser } from '../support/runtimes.ts'

const executablePath = browser()
const skip = !executablePath && 'no Chromium'

/** A page with two components over one client: the newest keys, and a sum; buttons mount the second and change its topic. */
const app = `
import { StrictMode, createElement as h, useState } from 'react'
import { createRoot } from 'react-dom/client'
import { createClient } from './client/index.js'
import { useStream } from './react/index.js'

const client = createClient({ url: '/', firstWait: 10 })

function Keys() {
  const { state, status } = useStream(client, { from: 'earliest', keep: 3 })
  return h('p', { id: 'keys', 'data-state': status.state }, state.map(({ key }) => key).join())
}

function Sum({ topic }) {
  const { state, gap } = useStream(client, {
    topics: { [topic]: ['*'] },
    from: 'earliest',
    initial: 0,
    reduce: (sum, { events }) => events.reduce((all, { payload }) => all + payload.total, sum),
  })
  return h('p', { id: 'sum', 'data-gap': String(gap !== undefined) }, topic + ' ' + state)
}

function App() {
  const [topic, setTopic] = useState('')
  return h('main', null, h(Keys), topic && h(Sum, { topic }),
    ['A', 'B', ''].map((each) => h('button', { key: each, id: 'show' + each, onClick: () => setTopic(each) })))
}

createRoot(document.body.appendChild(document.createElement('div'))).render(h(StrictMode, null, h(App)))
`

test('components show a stream, resume it, change it and let go of it', { skip }, async (t) => {
  const bundled = await build({
    stdin: { contents: app, resolveDir: path.join(import.meta.dirname, '../../src') },
    bundle: true,
    format: 'iife',
    write: false,
    define: { 'process.env.NODE_ENV': '"development"' },
  })
  const chrome = await chromium.launch({
    executablePath: executablePath as string,
    args: ['--no-sandbox', '--disable-background-networking'],
  })
  t.after(() => chrome.close())
  const site = await serve(t)
  const publish = (topic: string, key: string) => site.broker.publish({ topic, type: 't', key, payload: { total: 2 } })
  for (const key of ['1', '2', '3', '4']) await publish('A', key)
  const page = await chrome.newPage()
  const problems: string[] = []
  page.on('pageerror', (error) => problems.push(String(error)))
  page.on('console', (message) => {
    // The browser itself reports the cut connections, and that the page has no icon.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load')) problems.push(message.text())
  })
  await page.goto(`${site.url}/healthz`)
  await page.addScriptTag({ content: bundled.outputFiles[0]?.text as string })
  const text = (id: string, wanted: string) => page.locator(`#${id}`, { hasText: wanted }).waitFor()

  await text('keys', '2,3,4')
  await page.click('#showA')
  await text('sum', 'A 8')
  await publish('A', '5')
  await publish('B', '6')
  await text('sum', 'A 10')
  await text('keys', '4,5,6')
  for (const { response } of site.exchanges) response.socket?.destroy()
  await publish('A', '7')
  await text('sum', 'A 12')
  await text('keys', '5,6,7')
  assert.equal(await page.locator('#sum').getAttribute('data-gap'), 'false')
  await page.click('#showB')
  await text('sum', 'B 2')
  await page.click('#show')
  await until(() => site.broker.status.subscriptions === 1, 'the second component follows no more')
  assert.deepEqual(problems, [])
})
