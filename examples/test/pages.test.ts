// Every program of docs/in-process.md, docs/access.md, docs/shared.md, docs/browser.md and docs/react.md runs here, so that none of them can go stale.
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { build } from 'esbuild'
import type { Page } from 'playwright-core'
import { type Broker, createBroker, everything } from 'spillway'
import { toNodeHandler } from 'spillway/node'
import { newPage, noBrowser, runProgram, snippetsOf } from './support.ts'

const inProcess = snippetsOf('docs/in-process.md')
for (const [n, program] of inProcess('ts').entries()) {
  test(`in process: program ${n + 1} prints what the page says`, async () => {
    assert.equal(await runProgram(program), inProcess('text')[n])
  })
}

test('access: the program prints what the page says', async () => {
  const access = snippetsOf('docs/access.md')
  const [program = ''] = access('ts')
  const withToken = program.replaceAll('process.env.READER_TOKEN', "'a token'")
  assert.equal(await runProgram(withToken), access('text')[1])
})

const shared = snippetsOf('docs/shared.md')
// Between their outputs stands the picture of the ring.
const [orders, , newest] = shared('text')
for (const [n, printed] of [orders, newest].entries()) {
  test(`between threads: program ${n + 1} prints what the page says`, async () => {
    assert.equal(await runProgram(shared('ts')[n] as string), printed)
  })
}

/** A page that runs `program`, from the server that it follows. */
async function visit(t: TestContext, program: string, token?: string): Promise<{ page: Page; broker: Broker }> {
  const { outputFiles } = await build({
    stdin: { contents: program, loader: 'tsx', resolveDir: import.meta.dirname },
    bundle: true,
    format: 'esm',
    jsx: 'automatic',
    write: false,
    define: { 'process.env.NODE_ENV': '"production"' },
  })
  const broker = createBroker({
    authorize: (request) => {
      if (token !== undefined && request.token !== token) throw new Error('not this token')
      return everything
    },
  })
  const server = createServer(toNodeHandler(broker))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(async () => {
    await broker.close()
    server.close()
    server.closeAllConnections()
  })
  const page = await newPage(t)
  await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/healthz`)
  await page.addScriptTag({ content: outputFiles[0]?.text as string, type: 'module' })
  return { page, broker }
}

const [view = '', ticket = ''] = snippetsOf('docs/browser.md')('ts')

test('in the browser: a view by key shows what is, and resumes', { skip: noBrowser }, async (t) => {
  const { page, broker } = await visit(t, view)
  const text = (wanted: string) => page.waitForFunction(`document.body.textContent === ${JSON.stringify(wanted)}`)
  await broker.publish({ topic: 'Job', type: 'JobRegistered', key: 'web', payload: 1 })
  await broker.publish({ topic: 'Job', type: 'JobRegistered', key: 'db', payload: 2 })
  await text('live\ncomplete\nweb: 1\ndb: 2')
  await broker.publish({ topic: 'Job', type: 'JobRemoved', key: 'web' })
  await text('live\ncomplete\ndb: 2')
})

test('in the browser: EventSource follows with a ticket', { skip: noBrowser }, async (t) => {
  const { page, broker } = await visit(t, ticket, 'secret')
  await broker.publish({ topic: 'Job', type: 'JobRegistered', key: 'web' })
  await page.waitForFunction(`document.title === 'web'`)
})

test('React: components show a list and a sum', { skip: noBrowser }, async (t) => {
  const [components = ''] = snippetsOf('docs/react.md')('tsx')
  const program = `${components}
    import { createRoot } from 'react-dom/client'
    createRoot(document.body).render(<main><Orders /><Total /></main>)`
  const { page, broker } = await visit(t, program)
  await broker.publish({ topic: 'Order', type: 'OrderPlaced', key: 'A1', payload: { total: 12 } })
  await broker.publish({ topic: 'Order', type: 'OrderPlaced', key: 'A2', payload: { total: 7 } })
  await page.locator('output', { hasText: '19' }).waitFor()
  assert.deepEqual(await page.locator('li').allTextContents(), ['A1: 12', 'A2: 7'])
  assert.equal(await page.locator('p').first().textContent(), 'live')
})
