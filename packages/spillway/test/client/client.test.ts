import path from 'node:path'
import { after, before, test } from 'node:test'
import { type Control, control } from '../support/client-control.ts'
import { clientSuite } from './suite.ts'

let server: Control
before(async () => {
  server = await control(path.join(import.meta.dirname, '../..'))
})
after(() => server.close())

for (const transport of ['ndjson', 'sse'] as const) {
  for (const [n, { name }] of clientSuite('', transport).entries()) {
    test(name, () => clientSuite(server.url, transport)[n]?.run())
  }
}
