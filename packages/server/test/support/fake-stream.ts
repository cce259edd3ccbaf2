import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { TestContext } from 'node:test'

/** What a connection is answered with. */
export type Script = (response: ServerResponse, query: URLSearchParams) => void

/** A server that answers each connection as the next script says, and the last one from then on. */
export async function fakeStream(
  t: TestContext,
  ...scripts: Script[]
): Promise<{ url: string; queries: URLSearchParams[] }> {
  const queries: URLSearchParams[] = []
  const server = createServer((request: IncomingMessage, response) => {
    const query = new URL(request.url ?? '', 'http://x').searchParams
    const script = scripts[Math.min(queries.length, scripts.length - 1)]
    queries.push(query)
    script?.(response, query)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, queries }
}

/** Begins a stream of NDJSON and writes messages; a string is written as it is. */
export function stream(response: ServerResponse, ...messages: (object | string)[]): ServerResponse {
  response.writeHead(200, { 'content-type': 'application/x-ndjson; charset=utf-8' })
  for (const message of messages) response.write(typeof message === 'string' ? message : `${JSON.stringify(message)}\n`)
  return response
}

export const open = (cursor: string): object => ({ open: { cursor, oldest: 1, newest: 1 } })

export const batch = (index: number, key = String(index)): object => ({
  index,
  cursor: `e:${index}`,
  events: [{ topic: 'T', type: 't', key, namespace: '', filterKeys: [], payload: null }],
})
