import assert from 'node:assert/strict'
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { build } from 'vite'
import { newPage, noBrowser } from './support.ts'

const examples = fileURLToPath(new URL('../../', import.meta.url))
test('the board has no errors of types', async () => {
  const tsc = path.join(examples, '../node_modules/typescript/bin/tsc')
  await promisify(execFile)(process.execPath, [tsc, '-p', path.join(examples, 'order-board')])
})

async function serve(t: TestContext, data: string, port = '0'): Promise<{ server: ChildProcess; url: string }> {
  const program = path.join(examples, 'dist/order-board.js')
  const env = { ...process.env, PORT: port, DATA: data }
  const server = spawn(process.execPath, [program], { stdio: ['ignore', 'pipe', 'inherit'], env })
  t.after(() => server.kill('SIGKILL'))
  const [said] = await once(server.stdout as NodeJS.ReadableStream, 'data')
  return { server, url: String(said).trim() }
}

test('the board shows orders as they move, and goes on after a restart', {
  skip: noBrowser,
}, async (t) => {
  await build({ root: path.join(examples, 'order-board'), logLevel: 'error' })
  const folder = await mkdtemp(path.join(tmpdir(), 'spillway-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  const data = path.join(folder, 'orders.db')
  const first = await serve(t, data)
  const page = await newPage(t)
  await page.goto(first.url)
  await page.locator('#status', { hasText: 'live' }).waitFor()
  await page.locator('#shipped li', { hasText: 'A5:' }).waitFor()
  first.server.kill('SIGTERM')
  await once(first.server, 'exit')
  await page.locator('#status', { hasText: 'waiting' }).waitFor()
  const placed = await page.locator('#placed li').last().textContent()
  await serve(t, data, new URL(first.url).port)
  await page.locator('#status', { hasText: 'live' }).waitFor()
  const number = Number(/\d+/.exec(placed ?? '')?.[0])
  await page.waitForFunction(
    `[...document.querySelectorAll('li')].some((order) => Number(/\\d+/.exec(order.textContent)[0]) > ${number})`,
  )
  assert.equal(await page.getByText('are not shown').count(), 0)
})
