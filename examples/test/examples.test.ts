import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { createClient } from 'spillway/client'

async function run(name: string): Promise<string[]> {
  const program = fileURLToPath(new URL(`../src/${name}.js`, import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, [program], { timeout: 60_000 })
  return stdout.trim().split('\n')
}

test('slow-reader: every price is seen or told as missed, by the fast and by the slow reader', async () => {
  const lines = (await run('slow-reader')).sort()
  assert.equal(lines.length, 2)
  for (const line of lines) assert.match(line, /, 200 in all$/)
  assert.match(lines[0] ?? '', /^fast: 200 seen, 0 told as missed/)
  assert.doesNotMatch(lines[1] ?? '', / 0 told as missed/)
})

test('own-server: the second reader goes on after the cursor of the first', async () => {
  assert.deepEqual(await run('own-server'), [
    'from the start: order A1',
    'from the start: order A2',
    'from the cursor: order A3',
    'from the cursor: order A4',
    'from the cursor: order A5',
  ])
})

test('filter-history: what is kept has its indexes', async () => {
  assert.deepEqual(await run('filter-history'), ['2 batches kept', '1: Order A1', '3: Order A2'])
})

test('token-stream: the text is whole after a reload and a restart', async () => {
  assert.deepEqual(await run('token-stream'), [
    'Spillways let through what',
    'Spillways let through what a dam cannot hold, and hold what it must.',
  ])
})

test('worker: the worker does what is published', async () => {
  assert.deepEqual(await run('worker'), ['90: 2 x 3 x 3 x 5', '91: 7 x 13', '97: 97', '99: 3 x 3 x 11'])
})

test('express: an order that is posted can be followed', async (t) => {
  const program = fileURLToPath(new URL('../src/express.js', import.meta.url))
  const child = spawn(process.execPath, [program], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill())
  const [said] = await once(child.stdout, 'data')
  const url = String(said).trim()
  const orders = createClient({ url }).subscribe()
  t.after(() => orders.close())
  await orders.ready
  assert.deepEqual(await (await fetch(`${url}/orders/A1`, { method: 'POST' })).json(), { index: 1 })
  assert.equal((await orders.next()).events[0]?.key, 'A1')
})
