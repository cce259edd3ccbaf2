import { readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { after, type TestContext } from 'node:test'
import { type Browser, type BrowserContext, chromium } from 'playwright-core'
import { browser } from './runtimes.ts'

/** The folder of the compiled sources and tests. */
const build = path.join(import.meta.dirname, '../..')

const executablePath = browser()

/** Why tests in Chromium are skipped, or `false`. */
export const noChromium: string | false = executablePath ? false : 'Chromium is not installed'

/** What makes a page cross-origin isolated, so that it has shared memory. */
const isolation = { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp' }

let launched: Promise<Browser> | undefined
after(async () => (await launched)?.close())

/** Something like a browser of its own: pages of one context share what an origin has. Ends with the test. */
export async function openContext(t: TestContext): Promise<BrowserContext> {
  const args = ['--no-sandbox', '--disable-background-networking']
  launched ??= chromium.launch({ executablePath: executablePath as string, args })
  const context = await (await launched).newContext()
  t.after(() => context.close())
  return context
}

/** An empty page at `/`, and all compiled modules by their path. */
export async function servePages(t: TestContext, { isolated = false } = {}): Promise<string> {
  const server = createServer((request, response) => {
    if (isolated) for (const [name, value] of Object.entries(isolation)) response.setHeader(name, value)
    void answerFile(request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
}

/** Answers as {@link servePages} does. */
export async function answerFile({ url = '/' }: IncomingMessage, response: ServerResponse): Promise<void> {
  if (url === '/') {
    response.setHeader('content-type', 'text/html').end('<!doctype html><title>tests</title>')
    return
  }
  const file = path.join(build, path.normalize(url.replace(/\?.*$/, '')))
  const code = file.startsWith(build) ? await readFile(file).catch(() => undefined) : undefined
  response.writeHead(code ? 200 : 404, { 'content-type': 'text/javascript' }).end(code)
}
