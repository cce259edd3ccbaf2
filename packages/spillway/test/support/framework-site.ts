import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import type { FetchHandler } from '../../src/http/fetch.ts'

// What a bundler makes of a site is a copy of its modules: this is how they reach the broker of the test.
const shared = globalThis as { spillwayHandler?: FetchHandler }

/** Has the site's routes answer by `handler` from now on. */
export function answerBy(handler: FetchHandler): void {
  shared.spillwayHandler = handler
}

/** Writes a site where its framework finds what is installed. Gives its folder. */
export function writeSite(name: string, files: Readonly<Record<string, string>>): string {
  const folder = path.join(import.meta.dirname, '../..', 'sites', name)
  for (const [file, text] of Object.entries({ 'package.json': '{"type":"module"}', ...files })) {
    mkdirSync(path.dirname(path.join(folder, file)), { recursive: true })
    writeFileSync(path.join(folder, file), text)
  }
  return folder
}

export interface SiteServer {
  readonly url: string
  readonly server: Server
}

export async function listen(listener: RequestListener): Promise<SiteServer> {
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
}
