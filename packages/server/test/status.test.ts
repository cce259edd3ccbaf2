import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { event, publish } from './support/events.ts'
import { run, serve } from './support/program.ts'

test('status shows what a server keeps, for people and as JSON', async (t) => {
  const { url } = await serve(t)
  const empty = await run(t, ['status', '--url', url])
  assert.equal(empty.code, 0)
  assert.match(empty.stdout, /indexes +none kept; the newest was 0/)
  await publish(url, event('1'), event('2'))
  const { code, stdout } = await run(t, ['status', '--url', `${url}/`])
  assert.equal(code, 0)
  assert.match(stdout, new RegExp(`^${url}\n`))
  assert.match(stdout, /kept +2 batches, [0-9]+ bytes\n/)
  assert.match(stdout, /indexes +1 to 2\n/)
  const json = JSON.parse((await run(t, ['status', '--json'], { env: { SPILLWAY_URL: url } })).stdout)
  assert.equal(json.newest, 2)
})

test('a server that cannot be reached is said in a sentence, with 1', async (t) => {
  const free = createServer()
  await new Promise<void>((resolve) => free.listen(0, '127.0.0.1', resolve))
  const { port } = free.address() as AddressInfo
  await new Promise((resolve) => free.close(resolve))
  const { code, stdout, stderr } = await run(t, ['status', '--url', `http://127.0.0.1:${port}`])
  assert.equal(code, 1)
  assert.equal(stdout, '')
  assert.match(
    stderr,
    /^spillway status: Cannot reach http:\/\/127\.0\.0\.1:[0-9]+: connection refused\. Is `spillway serve` running there\?.*\n$/,
  )
})
