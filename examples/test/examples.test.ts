import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

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
