import assert from 'node:assert/strict'
import path from 'node:path'
import { test } from 'node:test'
import { createClient } from '../../../src/client/index.ts'
import { until } from '../../support/http.ts'
import { start } from '../../support/programs.ts'
import { runtime } from '../../support/runtimes.ts'

const program = path.join(import.meta.dirname, '../../support/fetch-server.js')

for (const [name, flags] of [
  ['bun', []],
  ['deno', ['run', '--allow-all']],
] as const) {
  const file = runtime(name)
  test(`in ${name} a server streams, publishes and forgets who leaves`, { skip: !file && `no ${name}` }, async (t) => {
    const server = start(t, file as string, [...flags, program])
    const url = `http://127.0.0.1:${await server.nextLine()}/api`
    const client = createClient({ url, firstWait: 20 })
    const subscriptions = [client.subscribe(), client.subscribe({ topics: { T: ['2'] } })] as const
    await Promise.all(subscriptions.map(({ ready }) => ready))
    for (const key of ['1', '2', '3']) await client.publish({ topic: 'T', type: 't', key, payload: 'é😀' })
    for (const key of ['1', '2', '3']) assert.equal((await subscriptions[0].next()).events[0]?.key, key)
    const { cursor, events } = await subscriptions[1].next()
    assert.deepEqual(events[0]?.payload, 'é😀')
    const resumed = client.subscribe({ from: cursor })
    assert.equal((await resumed.next()).index, 3)
    await assert.rejects(client.publish({ topic: 'T' } as never), { code: 'INVALID' })
    for (const each of [...subscriptions, resumed]) each.close()
    await until(async () => {
      const status = await fetch(`${url}/v1/status`)
      return ((await status.json()) as { subscriptions: number }).subscriptions === 0
    }, 'nobody reads any more')
  })
}
