import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { FaultySite, type SiteState } from './faulty-site.ts'

// Lets tests in any runtime command sites of this one: `POST /order` with { site?, method, args }, answered with the site's
// state. It also serves the compiled tests to browsers.

export interface Order {
  /** Absent: opens one, with `args[0]` as its options. */
  readonly site?: number
  readonly method: 'open' | 'state' | 'publish' | 'setMode' | 'cut' | 'setTokens' | 'stop' | 'start' | 'renew' | 'close'
  readonly args: readonly unknown[]
}

export interface Control {
  readonly url: string
  close(): Promise<void>
}

/** `root`: the folder whose modules a browser may load. */
export async function control(root: string): Promise<Control> {
  const sites: FaultySite[] = []
  const obey = async ({ site = 0, method, args }: Order): Promise<SiteState & { site: number }> => {
    if (method === 'open') {
      const opened = sites.push(await FaultySite.open(args[0] as object)) - 1
      return { site: opened, ...(sites[opened] as FaultySite).state }
    }
    const found = sites[site] as FaultySite
    const methods = found as unknown as Record<string, (...args: unknown[]) => unknown>
    if (method !== 'state') await methods[method]?.call(found, ...args)
    return { site, ...(method === 'close' ? ({} as SiteState) : found.state) }
  }
  const server = createServer(async (request, response) => {
    if (request.method === 'POST') {
      let body = ''
      for await (const chunk of request) body += chunk
      response.setHeader('content-type', 'application/json').end(JSON.stringify(await obey(JSON.parse(body))))
      return
    }
    const file = path.join(root, path.normalize(request.url ?? '/'))
    if (request.url === '/') response.setHeader('content-type', 'text/html').end('<!doctype html><title>tests</title>')
    else if (!file.startsWith(root)) response.writeHead(404).end()
    else {
      const code = await readFile(file).catch(() => undefined)
      response.writeHead(code ? 200 : 404, { 'content-type': 'text/javascript' }).end(code)
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: async () => {
      server.close()
      server.closeAllConnections()
      for (const site of sites) await site.close()
    },
  }
}
