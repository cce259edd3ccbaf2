import path from 'node:path'
import { after, before, test } from 'node:test'
import { WebSocket } from 'ws'
import { type Control, control } from '../support/client-control.ts'
import { clientSuite } from './suite.ts'

let server: Control
before(async () => {
  server = await control(path.join(import.meta.dirname, '../..'))
})
after(() => server.close())

for (const transport of ['ndjson', 'sse', 'websocket'] as const) {
  for (const [n, { name }] of clientSuite('', transport, { WebSocket }).entries()) {
    test(name, () => clientSuite(server.url, transport, { WebSocket })[n]?.run())
  }
}
