import { readFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import path from 'node:path'
import { packageFolder } from './package.ts'

const files: ReadonlyMap<string, readonly [name: string, type: string]> = new Map([
  ['/', ['index.html', 'text/html; charset=utf-8']],
  ['/page.js', ['page.js', 'text/javascript; charset=utf-8']],
  ['/page.css', ['page.css', 'text/css; charset=utf-8']],
])

const headers = {
  // What an event says must never run: no inline code, and nothing from elsewhere.
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
}

/** Answers requests for the page that shows the stream. `false`: the path is not one of its files. */
export type PageHandler = (request: IncomingMessage, response: ServerResponse) => boolean

/** The page, read once. */
export function createPage(folder: string = path.join(packageFolder, 'page')): PageHandler {
  const bodies = new Map([...files].map(([url, [name]]) => [url, readFileSync(path.join(folder, name))]))
  return (request, response) => {
    const [url = ''] = (request.url ?? '').split('?', 1)
    const body = bodies.get(url)
    if (!body) return false
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.writeHead(405, { ...headers, allow: 'GET, HEAD', connection: 'close' }).end()
      return true
    }
    response.writeHead(200, { ...headers, 'content-type': files.get(url)?.[1], 'content-length': body.length })
    response.end(request.method === 'HEAD' ? undefined : body)
    return true
  }
}
