import assert from 'node:assert/strict'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { chromium } from 'playwright-core'
import { type Control, control } from '../support/client-control.ts'
import { browser, jsonLines, runtime } from '../support/runtimes.ts'
import { clientSuite } from './suite.ts'

const transports = ['ndjson', 'sse', 'websocket'] as const
const build = path.join(import.meta.dirname, '../..')

let server: Control
before(async () => {
  server = await control(build)
})
after(() => server.close())

interface Result {
  readonly name: string
  readonly failed?: string
}

function check(results: readonly Result[]): void {
  assert.deepEqual(
    results.filter(({ failed }) => failed !== undefined),
    [],
  )
  assert.equal(
    results.length,
    transports.map((each) => clientSuite('', each).length).reduce((a, b) => a + b),
  )
}

for (const name of ['bun', 'deno'] as const) {
  const program = runtime(name)
  test(`the client holds in ${name}`, { skip: !program && `no ${name} for this machine` }, async () => {
    const allowed = name === 'deno' ? ['run', '--allow-all'] : []
    const script = path.join(build, 'test/client/run.js')
    check(await jsonLines<Result>(program as string, [...allowed, script, server.url, transports.join()]))
  })
}

const executablePath = browser()
test('the client holds in Chromium', { skip: !executablePath && 'no Chromium' }, async (t) => {
  const args = ['--no-sandbox', '--disable-background-networking']
  const chrome = await chromium.launch({ executablePath: executablePath as string, args })
  t.after(() => chrome.close())
  const page = await chrome.newPage()
  await page.goto(server.url)
  // As text: the compiler would rewrite the import of a function.
  const program = `(async () => {
    const { clientSuite } = await import('/test/client/suite.js')
    const results = []
    for (const transport of ${JSON.stringify(transports)}) {
      for (const { name, run } of clientSuite(location.origin, transport)) {
        const failed = await run().then(() => undefined, (error) => String(error?.stack ?? error))
        results.push({ name, failed })
      }
    }
    return results
  })()`
  check(await page.evaluate<Result[]>(program))
})
